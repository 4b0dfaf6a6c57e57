"""Names that PyTorch, Keras, scikit-learn and JAX give to what bpxp calls otherwise, and those that lead nowhere."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from bpxp.errors import InvalidTypeError

NONE = ""  # bpxp has nothing of this kind: a name that is spelled alike would be another thing

LOSSES = {
    "softmax_cross_entropy": "crossentropy crossentropyloss categoricalcrossentropy sparsecategoricalcrossentropy nll "
    "nllloss logloss softmax softmaxcrossentropyloss softmaxcrossentropywithintegerlabels negativeloglikelihood ce "
    "multiclasscrossentropy deviance",
    "binary_cross_entropy": "bce bceloss bcewithlogits bcewithlogitsloss binarycrossentropywithlogits binarylogloss "
    "sigmoidbinarycrossentropy sigmoidcrossentropy multilabelsoftmarginloss binaryloss",
    "mean_squared_error": "mse mseloss squarederror squaredloss l2 l2loss quadratic quadraticcost leastsquares ls "
    "meansquareerror",
    "mean_absolute_error": "mae l1 l1loss absoluteerror meanabsolute absolutedeviation meanabsolutedeviation lad",
    "huber": "smoothl1 smoothl1loss huberloss",
    "poisson": "poissonnll poissonnllloss poissonloss poissondeviance",
    NONE: "hinge squaredhinge categoricalhinge hingeloss multimarginloss focal focalloss binaryfocalcrossentropy "
    "categoricalfocalcrossentropy kldiv kldivloss kld kldivergence kullbackleibler logcosh ctc ctcloss "
    "cosinesimilarity "
    "cosineembeddingloss tripletmarginloss mape meanabsolutepercentageerror msle meansquaredlogarithmicerror "
    "gaussiannllloss quantile pinball tweedie gamma dice",
}
ACTIVATIONS = {
    "sigmoid": "logistic expit",
    "identity": "linear none",
    "silu": "swish",
    "leaky_relu": "lrelu leakyrectify",
    "relu": "rectifier rectify rectifiedlinear",
    "tanh": "tanhactivation hyperbolictangent",
    NONE: "relu6 prelu rrelu celu crelu glu hardtanh hardswish hardsilu hardshrink softshrink tanhshrink threshold "
    "logsigmoid logsoftmax softmin softmax exponential maxout hardmish sparseplus squareplus",
}
INITIALIZERS = {
    "glorot_uniform": "xavieruniform xavieruniform_ glorotuniform_",
    "glorot_normal": "xaviernormal xaviernormal_",
    "he_uniform": "kaiminguniform kaiminguniform_ kaiming",
    "he_normal": "kaimingnormal kaimingnormal_ msra",
    "orthogonal": "orthogonal_",
    "zeros": "zero zeros_ constant0",
    "normal": "normal_ randomnormal gaussian randn",
    NONE: "uniform uniform_ randomuniform ones ones_ one constant constant_ eye dirac identity sparse_ truncatednormal "
    "truncnormal_ variancescaling default",
}
OPTIMIZERS = {
    "sgd": "gradientdescent gd stochasticgradientdescent vanilla",
    "momentum": "sgdmomentum sgdwithmomentum heavyball",
    "nesterov": "nag nesterovmomentum nesterovacceleratedgradient",
    "adamw": "adamweightdecay adamwithweightdecay",
    NONE: "adamax nadam radam adadelta adafactor asgd rprop lamb lars lion lbfgs ftrl sparseadam adabelief yogi muon "
    "newton cg shampoo sophia noisysgd fromage sm3",
}
METRICS = {
    "accuracy": "acc categoricalaccuracy sparsecategoricalaccuracy accuracyscore multiclassaccuracy balancedaccuracy",
    "label_accuracy": "binaryaccuracy hamming hammingloss",
    "exact_match": "subsetaccuracy exactmatchratio",
    "top5_accuracy": "top5 topkcategoricalaccuracy sparsetopkcategoricalaccuracy topkaccuracy top5acc "
    "topkaccuracyscore",
    "precision_recall_f1": "precision recall f1macro f1score precisionrecallfscore precisionscore recallscore",
    "f1": "multilabelf1 f1micro",
    NONE: "auc rocauc rocaucscore averageprecision mse mae rmse r2 r2score loss perplexity iou meaniou kappa "
    "cohenkappa mcc matthewscorrcoef logloss confusionmatrix",
}
BACKENDS = {
    "numpy": "cpu np host",
    "cupy": "cp cupycuda",
    "cupy', 'torch:cuda' or 'jax:gpu": "gpu cuda nvidia device",
    "torch": "pytorch pt",
    "jax": "jnp jaxnumpy flax xla",
    NONE: "tensorflow tf keras mxnet theano tpu mps mlx rocm dask sklearn",
}
COLUMNS = {  # of a history; "val_" is "validation_"
    "validation_loss": "valloss testloss validloss evalloss lossvalidation lossval devloss",
    "validation_accuracy": "valacc valaccuracy testaccuracy testacc validacc evalaccuracy accuracyval",
    "train_accuracy": "acc accuracy trainacc trainingaccuracy",
    "train_loss": "trainingloss",
    "learning_rate": "lr eta",
    "seconds": "time duration",
}
KINDS = {
    "Loss": LOSSES,
    "Activation": ACTIVATIONS,
    "Initializer": INITIALIZERS,
    "Optimizer": OPTIMIZERS,
    "Metric": METRICS,
    "backend": BACKENDS,
    "column": COLUMNS,
}
# Arguments: the parameter that is meant, where the callable has it; else what to write.
ARGUMENTS = {
    "learning_rate": "lr eta step_size alpha learning_rate_init initial_lr",
    "hidden": "activation activations hidden_activation nonlinearity",
    "output": "output_activation out_activation final_activation",
    "layers": "hidden_layer_sizes sizes layer_sizes architecture",
    "loss": "criterion loss_fn loss_function cost objective",
    "init": "initializer kernel_initializer weight_init init_method weights_init",
    "initializer": "init kernel_initializer weight_init",
    "backend": "device library xp framework",
    "seed": "random_state rng key random_seed",
    "input_shape": "in_shape input_dim input_size shape",
    "dtype": "precision type",
    "epochs": "nb_epoch n_epochs num_epochs max_iter max_epochs n_iter iterations",
    "batch_size": "batch batchsize mini_batch_size minibatch_size n_batch",
    "validation": "validation_data validation_split eval_set val_data valid val validation_fraction test_data",
    "weight": "sample_weight sample_weights weights",
    "class_weight": "class_weights pos_weight weights_of_classes",
    "augment": "augmentation transforms transform",
    "resume": "resume_from ckpt_path checkpoint",
    "optimizer": "optim opt solver",
    "metrics": "metric scoring",
    "progress": "verbose progress_bar",
    "activation": "act nonlinearity",
    "units": "out_features n_out features output_dim",
    "filters": "out_channels channels",
    "kernel": "kernel_size filter_size window",
    "pool": "pool_size kernel_size window",
    "stride": "strides",
    "dilation": "dilation_rate dilations",
    "padding": "pad",
    "groups": "feature_group_count",
    "rate": "p prob drop_rate dropout dropout_rate",
    "momentum": "mu beta nesterovs_momentum",
    "l2": "weight_decay reg_lambda lambda_ alpha",
    "decay": "weight_decay",
    "beta1": "beta_1 b1",
    "beta2": "beta_2 b2",
    "epsilon": "eps",
    "clip_norm": "clipnorm max_norm grad_clip max_grad_norm gradient_clip_val global_clipnorm",
    "clip_value": "clipvalue",
    "min_delta": "tol threshold",
    "patience": "n_iter_no_change early_stopping_rounds",
    "restore_best": "restore_best_weights",
    "path": "filepath file filename",
    "monitor": "metric watch",
}
ELSEWHERE = {
    "fit": {
        "Trainer(net, {}=…)": "callbacks metrics optimizer",
        "Trainer(net, bpxp.optim.Adam(…))": "learning_rate lr solver",
        "Trainer(net, progress=False)": "verbose",
        "callbacks=[bpxp.callbacks.EarlyStopping()] of the Trainer": "early_stopping patience",
        "Network(…, loss=…)": "loss criterion",
        "fit((x, y), …)": "x y X Y inputs targets",
    },
    "Network": {
        "Trainer(net, bpxp.optim.Adam(…))": "optimizer learning_rate lr solver",
        "Trainer(net, …, metrics=…)": "metrics",
        "Trainer(net).fit(data, {}=…)": "epochs batch_size",
        "nn.Dropout(rate) among the layers": "dropout",
        "Network([784, 30, 10])": "input_dim units",
    },
    "Trainer": {
        "fit(data, {}=…)": "epochs batch_size validation class_weight shuffle resume augment weight",
        "bpxp.optim.Adam(…) as the optimizer": "learning_rate lr",
        "Network(…, loss=…)": "loss criterion",
        "Network(…, backend=…)": "backend device",
    },
}
F = TypeVar("F", bound=Callable[..., Any])


def plain(name: str) -> str:
    """Return a name without case, separators and the like."""
    return "".join(c for c in name.lower() if c.isalnum())


@functools.cache
def _others(kind: str) -> dict[str, str]:
    return {plain(other): name for name, others in KINDS.get(kind, {}).items() for other in others.split()}


def meant(name: str, allowed: Iterable[str], kind: str) -> str:
    """Return ``"Did you mean 'relu'?"`` for another library's name or a slip, an empty string otherwise."""
    same, others = {plain(own): own for own in allowed}, _others(kind)
    if plain(name) not in others:
        return f"Did you mean {same[plain(name)]!r}?" if plain(name) in same else suggestion(name, same.values())
    own = others[plain(name)]
    return f"Did you mean '{own}'?" if own else ""


def named_arguments(function: F) -> F:
    """Let a function, or the constructor of a class, name the argument that is meant by one that it does not have."""
    if isinstance(function, type):
        function.__init__ = named_arguments(function.__init__)  # type: ignore[misc]
        return function
    owner, _, name = function.__qualname__.rpartition(".")
    called = owner.rpartition(".")[2] if name == "__init__" else name
    known = [p for p in inspect.signature(function).parameters if p != "self"]

    @functools.wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        if keywords:
            for given in keywords:
                if given not in known:
                    raise _unknown(called, given, known)
        return function(*args, **keywords)

    return call  # type: ignore[return-value]


def _unknown(called: str, given: str, known: list[str]) -> InvalidTypeError:
    """Return the error of an argument that a function does not have."""
    fixes = [line.format(given) for line, others in ELSEWHERE.get(called, {}).items() if given in others.split()]
    fixes += [f"{own}=…" for own, others in ARGUMENTS.items() if own in known and given in others.split()]
    where, expected = f"{called}({given}=…)", f"one of {', '.join(known)}"
    first, fix = ("", fixes[0]) if fixes else (suggestion(given, known), "")
    return InvalidTypeError(where, "unknown argument", code="E003", expected=expected, first=first, fix=fix)


def suggestion(name: str, allowed: Iterable[str]) -> str:
    """Return ``"Did you mean 'relu'?"`` for a slip, an empty string otherwise: two letters too many or few at most."""
    import difflib

    alike = [other for other in allowed if abs(len(other) - len(name)) <= 2]
    exchanged = [other for other in alike if sorted(other) == sorted(name.lower())]
    nearest = exchanged or difflib.get_close_matches(name.lower(), alike, n=1, cutoff=0.75)
    return f"Did you mean {nearest[0]!r}?" if nearest else ""
