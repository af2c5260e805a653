"""What the settings of a training run mean, for ``--help``."""

HELP = {
    "epochs": "passes over the training images (teacher: 0 for no limit)",
    "least_steps": "further epochs follow until there were as many steps",
    "minutes": "longest time of training; 0: no limit",
    "batch": "images per step; a collage of N counts as N",
    "muon_lr": "learning rate of convolutions (Muon); 0: SGD trains everything",
    "muon_momentum": "momentum of Muon",
    "sgd_lr": "learning rate of all other weights (SGD)",
    "bias_gain": "learning rate of batch-norm biases and cell embeddings, as a multiple of SGD's",
    "bias_lr": "learning rate of biases, per image of a batch",
    "head_lr": "learning rate of the last layer, per image of a batch",
    "momentum": "momentum of SGD",
    "weight_decay": "weight decay (teacher: per image of a batch)",
    "warmup": "share of the run in which the rates rise",
    "smoothing": "label smoothing, 0 to 1",
    "shift": "pixels by which images are moved at random",
    "crop": "smallest share of an image's area in a random crop; 0: they are shifted instead",
    "window": "side of the part of an image that is seen, pixels; 0: all of it",
    "cutout": "side of a square that is blackened, pixels",
    "mix": "share of images into which a box of another one is pasted",
    "blank": "share of empty cells in training collages",
    "distil": "weight of the teachers' answer in the target, 0 to 1",
    "small_size": "side of images or cells in the first part of the run, pixels; 0: no such part",
    "small_share": "share of the run that this part takes",
    "collages": "number of different collages, drawn once; 0: new ones every epoch",
    "whiten_share": "share of the run in which the first layer's bias is learnt",
    "skip": "share of the easy images, those of less than the mean loss, that an epoch leaves out",
    "whole_from": "share of the run after which an epoch leaves no image out",
    "seed": "of the first weights and of all that is drawn at random",
}
"""By the name of the setting, in ``Recipe`` or in ``TeacherRecipe``."""
DEVICE_HELP = "where torch trains: cpu, cuda, mps (%(default)s)"
PRECISION_HELP = "numbers of the forward pass (bf16 where the device is fast at it)"
