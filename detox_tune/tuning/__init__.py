"""The search on Ray: space, trials, scheduler, searcher, results and export."""
