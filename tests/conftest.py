"""One torch thread for every test, as for every worker: two give other bits and stall on busy cores."""

import torch

torch.set_num_threads(1)
