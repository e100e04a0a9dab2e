from .config import SearchConfig as SearchConfig
from .config import TrialConfig as TrialConfig
from .data.lexicon import Lexicon as Lexicon
from .data.pairs import Pair as Pair
from .data.pairs import load_pairs as load_pairs
from .data.split import split_pairs as split_pairs
from .errors import UserError as UserError
from .evaluation.adapters import TunedModel as TunedModel
from .evaluation.adapters import load_adapter as load_adapter
from .evaluation.adapters import load_whole_model as load_whole_model
from .evaluation.collapse import is_copy as is_copy
from .evaluation.collapse import label_output as label_output
from .evaluation.scores import score_outputs as score_outputs
from .model.base import load_base as load_base
from .model.lora import add_lora as add_lora
from .training.examples import make_examples as make_examples
from .training.examples import toxic_token_ids as toxic_token_ids
from .training.trainer import build_trainer as build_trainer
from .tuning.run import run_search as run_search
from .tuning.space_file import load_space as load_space

__version__: str
