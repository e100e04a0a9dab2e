"""Search for the fine-tuning that makes a small model really rewrite toxic sentences.

The public names stand in `__init__.pyi`. Each is imported when it is first used, so that
`import detox_tune` takes no time.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
