"""What all systems share: columns, split, sizes and rates.

Knows no system. Imports nothing, so that every environment can read it.
"""

USER_IDS = tuple(f"u{i:02d}" for i in range(13))
ITEM_IDS = tuple(f"i{i:02d}" for i in range(13))
IDS = (*USER_IDS, *ITEM_IDS)
USER_NUMBERS = tuple(f"user_number_{i}" for i in range(3))
ITEM_NUMBERS = tuple(f"item_number_{i}" for i in range(3))
NUMBERS = (*USER_NUMBERS, *ITEM_NUMBERS)
LABELS = ("click", "conversion")
TIME = "time"

TRAIN, VALIDATION = 0.8, 0.1  # in time order; the last tenth is the test split

ARCHITECTURES = ("esmm", "mmoe", "ple")
DIM = 16  # of every embedding, as in torch-rechub's own ESMM example
BATCH_ROWS = 4096
TOWER_OF_ESMM = (128, 64)
EXPERTS = 4  # of MMoE
LEVELS, PRIVATE, SHARED = 2, 2, 2  # of PLE
EXPERT = (128, 64)
TOWER = (32,)

LEARNING_RATE = 1e-3
EMBEDDING_LEARNING_RATE = 0.05  # of row-wise Adagrad; torch-rechub has one rate for everything


def cuts(rows: int) -> tuple[int, int]:
    """Where the validation and the test split begin.

    >>> cuts(1000)
    (800, 900)
    """
    return int(rows * TRAIN), int(rows * (TRAIN + VALIDATION))
