"""The codes of errors and warnings: each names a kind of mistake, wherever it is made.

A message ends with ``[BPX-E031]``, and the exception has it as `code`. A code keeps its meaning for ever: a new kind of
mistake gets a new one, and the one of a kind that cannot be made any more is not used again. docs/errors.md shows for
each a call that causes it.
"""

from __future__ import annotations

CODES = {
    # arguments
    "E001": "An argument has a type that cannot work.",
    "E002": "A number is out of its range.",
    "E003": "There is nothing of this name.",
    "E004": "An argument is neither a name nor an object of its kind.",
    "E005": "Two arguments contradict each other.",
    # layers, losses, parameters
    "E010": "The list of layers is not one of sizes and layers.",
    "E011": "The parameters do not fit into memory.",
    "E012": "The dtype is not one to train in.",
    "E013": "The loss does not fit the outputs.",
    "E014": "A layer does not fit the samples that it gets.",
    "E015": "A batch has too few values to normalize by.",
    "E016": "Parameters of another structure or shape.",
    "E017": "An array has another shape than the one that it belongs to.",
    # backends
    "E020": "There is no array library of this name.",
    "E021": "A library is not installed.",
    "E022": "An array library is installed and does not compute.",
    "E023": "There is no such device.",
    "E024": "There are no such matrix products.",
    "E025": "An array is on another device.",
    "E026": "A step asks for something of which nobody has said what it costs.",
    "E027": "A step does what no array library could.",
    # samples
    "E030": "Something that is not data.",
    "E031": "Something other than real numbers.",
    "E032": "A sparse matrix.",
    "E033": "Masked values.",
    "E034": "A tensor that records gradients.",
    "E035": "Rows of different lengths.",
    "E036": "Samples of another shape.",
    "E037": "No samples, or samples of no numbers.",
    "E038": "NaN or infinite numbers.",
    "E039": "Numbers too large for the dtype.",
    # targets and weights
    "E040": "Samples and targets differ in number.",
    "E041": "Labels out of range.",
    "E042": "Labels that are no integers.",
    "E043": "Labels that are text.",
    "E044": "Targets of another shape.",
    "E045": "Targets that are missing or infinite.",
    "E046": "Targets that the loss does not take.",
    "E047": "Weights of samples that cannot be used.",
    "E048": "Weights of classes that cannot be used.",
    # training
    "E050": "A part of the data would have no samples.",
    "E051": "The network is being fitted already.",
    "E052": "The loss, or what is learned, is no longer finite.",
    "E053": "The device has too little memory.",
    "E054": "The history has no such column.",
    "E055": "Nothing says which run to resume.",
    "E056": "A transform that cannot be used.",
    "E057": "Layers are nested too deeply.",
    # files of networks and runs
    "E060": "The file is damaged.",
    "E061": "The file has another format.",
    "E062": "The file declares what nobody would write by accident.",
    "E063": "The file is newer than this bpxp.",
    "E064": "The file belongs to another network or run.",
    "E065": "Something that cannot be written to a file.",
    "E066": "The file names a layer that is not known.",
    "E067": "The file cannot be written; what was there before is intact.",
    # data sets
    "E070": "A data file does not have its format.",
    "E071": "A data file has other bytes than the published ones.",
    "E072": "A data set is not there.",
    "E073": "There are no samples of these numbers.",
    "E074": "An array that the format cannot hold.",
    "E075": "A picture that the network cannot take.",
    # verification
    "E080": "A gradient differs from the derivative of the loss.",
    "E081": "The code differs from its equation.",
    "E082": "An equation is not in the notation.",
    "E083": "An equation cannot be evaluated.",
    "E084": "Nothing states the equations.",
    "E085": "A layer breaks a rule that layers keep.",
    # accepted, with a warning
    "W001": "Labels in a column are taken as they are meant.",
    "W002": "All labels are the same class.",
    "W003": "A batch larger than the data is cut.",
    "W004": "A run goes on under other circumstances.",
    "W005": "A network that is not finite is not saved.",
    "W006": "A run could not be saved.",
    "W007": "A data set could not be kept.",
    "W008": "The device may have too little memory.",
}
