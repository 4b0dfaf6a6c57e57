"""The named checks of the museum: which tests, and which gradient checks, each of them consists of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from mistakes import ROWS
from museum import own
from museum.instruments import Cell, cases

import bpxp
from bpxp import nn, optim
from bpxp.verify.equations.catalogue import catalogue

TORCH = "PyTorch"
LAYERS = {name: thing for name, thing in catalogue().items() if isinstance(thing, nn.Layer)}

DENSE = [4, 5, 3]
IMAGE = (5, 4, 2)
ACTIVATIONS = {
    **nn.ACTIVATIONS,
    "leaky_relu 0": nn.LeakyReLU(0.0),
    "elu 0.4": nn.ELU(0.4),
    "gelu tanh": nn.GELU("tanh"),
}
LAST = [nn.Flatten(), 3]
# Stride, padding and kernel such that windows overlap or not, and such that something is left over or not.
CONVOLUTIONS = [
    {"kernel": 3, "padding": "same"},
    {"kernel": 2, "stride": 2},
    {"kernel": 3, "stride": 2, "padding": 1},
    {"kernel": 2, "stride": 3, "padding": 1},
    {"kernel": 2, "dilation": 2},
]
NETWORKS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    **{f"loss {name}": (DENSE, {"loss": name, "hidden": "tanh"}) for name in nn.LOSSES},
    **{f"activation {name}": ([3, nn.Dense(4, each), 2], {}) for name, each in ACTIVATIONS.items()},
    **{f"conv {c}": ([nn.Conv2D(3, 1), nn.Conv2D(2, **c), *LAST], {"input_shape": IMAGE}) for c in CONVOLUTIONS},
    "groups": ([nn.Conv2D(4, 2, groups=2), nn.GlobalAvgPool2D(), 3], {"input_shape": IMAGE}),
    "max pool": ([nn.Conv2D(2, 1), nn.MaxPool2D(3, 2, 1), *LAST], {"input_shape": IMAGE}),
    "max pool, side by side": ([nn.Conv2D(2, 1), nn.MaxPool2D(2), *LAST], {"input_shape": IMAGE}),
    "mean pool": ([nn.Conv2D(2, 1), nn.AvgPool2D(2, 1), *LAST], {"input_shape": IMAGE}),
    "batch norm": ([nn.Conv2D(2, 1), nn.BatchNorm(), *LAST], {"input_shape": IMAGE}),
    "layer norm": ([4, 5, nn.LayerNorm(), 3], {}),
    "dropout": ([6, nn.Dropout(0.4), 5, 3], {}),
    "residual": ([4, nn.Residual([nn.Dense(3, "tanh"), nn.Dense(4)]), nn.Identity(), 3], {}),
    "embedding": ([4, nn.Embedding(5, 3), *LAST], {}),
}
PENALTIES = [optim.SGD(0.1, l1=0.05, l2=0.3), optim.SGD(0.1, l2=0.3, decay_biases=True)]


def gradient_check(batch: int) -> Iterator[Cell]:
    """Yield `check_gradients` of each network on a batch of so many samples."""
    for name, (layers, options) in NETWORKS.items():
        yield Cell(name, lambda layers=layers, options=options: own.check(layers, options, batch))
    for optimizer in PENALTIES:
        yield Cell(repr(optimizer), lambda optimizer=optimizer: own.check(DENSE, {}, batch, optimizer))


def equations() -> Iterator[Cell]:
    for name, thing in catalogue().items():
        yield Cell(name, lambda thing=thing: bpxp.verify.check_equations(thing, backend="numpy"))


def by_hand() -> Iterator[Cell]:
    for name in ("sigmoid_and_binary_cross_entropy", "two_steps_of_relu_and_squared_error"):
        yield from cases(f"test_by_hand.test_{name}")
    yield from cases("test_by_hand.test_softmax_cross_entropy_of_zero_weights")


def kinks() -> Iterator[Cell]:
    yield from cases("operations.test_kinks.test_activations")
    yield from cases("operations.test_kinks.test_ties_of_maxima")
    yield from cases("operations.test_kinks.test_losses")
    yield from cases("nn.test_pooling.test_all_equal_goes_to_the_first_pixel_of_each_window")
    yield from cases("nn.test_pooling.test_every_backend", name=["overlap", "uneven"])  # whole numbers: ties


def extremes() -> Iterator[Cell]:
    yield from cases("operations.test_extremes.test_activations_of_every_size")
    yield from cases("operations.test_extremes.test_losses_of_every_size")
    yield from cases("operations.test_extremes.test_a_confident_mistake_costs_its_logit")
    for name in (
        "softmax_of_the_largest_numbers",
        "probability_keeps_its_relative_accuracy",
        "binary_at_the_largest_number",
        "nearly_certain_labels_keep_their_relative_accuracy",
    ):
        yield from cases(f"nn.test_losses.test_{name}")
    yield from cases("optim.test_clipping.test_an_exploding_gradient_does_not_overflow")


def optimizers() -> Iterator[Cell]:
    yield from cases("optim.test_rules.test_first_steps_by_hand")
    yield from cases("optim.test_rules.test_epsilon_of_adam_stands_outside_the_root_and_beside_the_corrected_moment")
    yield from cases("optim.test_rules.test_momentum_feels_a_new_learning_rate_at_once")
    for name in (
        "the_order_of_an_update",
        "biases_are_decayed_only_on_request",
        "the_average_follows_the_parameters_from_the_start",
        "zero_gradients_leave_the_parameters_alone",
    ):
        yield from cases(f"optim.test_update.test_{name}")
    yield from cases("optim.test_clipping.test_zero_stays_zero")


def purity() -> Iterator[Cell]:
    for name, layer in LAYERS.items():
        yield Cell(name, lambda layer=layer: own.pure(layer))
    yield from cases("network.test_network.test_loss_and_gradients_change_nothing")
    yield from cases("training.test_trainer.test_inputs_are_not_written")
    yield from cases("optim.test_update.test_init_only_reads")
    yield from cases(
        "optim.test_update.test_updates_write_in_place_and_buffers_are_disjoint", rule=["nesterov", "adam"]
    )


def dtypes() -> Iterator[Cell]:
    for name, layer in LAYERS.items():
        yield Cell(name, lambda layer=layer: own.narrow(layer))
    for name, loss in nn.LOSSES.items():
        yield Cell(name, lambda loss=loss: own.narrow_loss(loss))
    yield from cases("optim.test_update.test_state_keeps_shapes_dtypes_and_structure")


def evaluation() -> Iterator[Cell]:
    for name in (
        "evaluation_is_deterministic_and_independent_of_the_batch",
        "training_moves_statistics_and_key_and_evaluation_does_not",
    ):
        yield from cases(f"nn.test_stateful_layers.test_{name}")
    yield from cases("nn.test_dropout.test_the_mean_stays")
    yield from cases("nn.test_dropout.test_evaluation_does_not_depend_on_the_batch")
    yield from cases("nn.test_dropout.test_evaluation_and_rate_zero_change_nothing")
    yield from cases("nn.test_normalization.test_running_statistics")
    yield from cases("nn.test_normalization.test_evaluation_does_not_depend_on_the_batch")


def validation() -> Iterator[Cell]:
    for test, kinds in (("a_mistake", ["once"]), ("a_mistake_on_each_backend", ["x", "y", "backend"])):
        rows = [row for row in ROWS if row.kind in kinds and "E030" <= row.code <= "E049"]  # of x, y and weights
        yield from cases(f"test_bad_input.test_{test}", row=rows)
    yield from cases("nn.test_losses.test_vector_is_never_broadcast_against_a_column")
    yield from cases("nn.test_losses.test_shapes_of_class_and_label_targets")
    yield from cases("nn.test_embedding.test_numbers_are_rounded_and_strangers_are_nan")
    yield from cases("nn.test_normalization.test_a_batch_of_one_value_is_refused_by_name")
    yield from cases("optim.test_update.test_a_gradient_of_another_shape_is_refused_not_broadcast")


def loop() -> Iterator[Cell]:
    for name in (
        "an_epoch_is_gradient_descent_over_its_batches",
        "loss_of_an_epoch_is_the_mean_over_its_samples",
        "weights_of_samples_and_classes",
        "one_fit_of_four_epochs_is_four_fits_of_one",
        "plateau_sees_the_validation_loss",
    ):
        yield from cases(f"training.test_trainer.test_{name}")
    yield from cases("callbacks.test_callbacks.test_early_stopping_counts")
    for name in ("by_hand", "plateau_by_hand", "plateau_options"):
        yield from cases(f"optim.test_schedules.test_{name}")
    yield from cases("nn.test_stateful_layers.test_samples_that_fill_up_the_last_batch_do_not_count")


def files() -> Iterator[Cell]:
    yield from cases(
        "saving.test_format.test_what_is_saved_comes_back_on_any_backend", backend=["numpy", "strict:device1"]
    )
    yield from cases("saving.test_format.test_training_goes_on_after_loading")
    yield from cases("nn.test_stateful_layers.test_saved_and_loaded_it_goes_on_as_if_nothing_had_happened")
    yield from cases(
        "network.test_network.test_to_another_backend_keeps_the_parameters", backend=["numpy", "strict:device1"]
    )
    yield Cell("what is set is there", own.set_and_get)
    yield Cell("cut and resumed", own.cut_and_resumed)


def relations() -> Iterator[Cell]:
    for name in (
        "gradients_are_of_the_mean_over_the_batch",
        "weights_count_like_repeated_samples",
        "pixels_are_scaled_wherever_they_enter",
    ):
        yield from cases(f"network.test_network.test_{name}")
    yield from cases("network.test_network.test_chunks_of_prediction_and_evaluation_join", n=[1001])
    yield from (Cell(name, lambda loss=loss: own.parts_add_up(loss)) for name, loss in nn.LOSSES.items())
    yield from cases("optim.test_update.test_neutral_options_change_no_bit")
    yield from cases("optim.test_update.test_equal_ways_to_say_the_same")
    yield from cases("nn.test_conv.test_pointwise_is_dense_per_pixel")
    yield from cases("nn.test_conv.test_full_size_is_dense")
    yield from cases("nn.test_pooling.test_one_window_over_all_is_the_global_mean")
    yield from cases("nn.test_normalization.test_absent_samples_change_nothing")


def options() -> Iterator[Cell]:
    yield from cases("operations.test_options.test_each_option_has_an_effect")
    yield from cases("network.test_network.test_seed_changes_parameters_and_none_draws_one")
    yield from cases("training.test_trainer.test_same_seed_same_run_and_shuffle_has_an_effect")
    yield from cases("nn.test_stateful_layers.test_other_seed_other_masks")
    yield from cases("nn.test_dropout.test_masks_differ_between_steps_seeds_and_layers")


def backends() -> Iterator[Cell]:
    for name, layer in LAYERS.items():
        yield Cell(name, lambda layer=layer: own.agree(layer))
    for name, rule in optim.OPTIMIZERS.items():
        yield Cell(name, lambda rule=rule: own.agree_on_updates(type(rule)))


def torch() -> Iterator[Cell]:
    """Yield losses, gradients and running statistics beside PyTorch's; where it is installed."""
    plain = {"weight": [None, np.array([0.0, 1.0, 0.5, 2.0, 1.0, 1.0, 3.0, 0.1, 1.0])]}
    for name in ("activation", "network"):
        yield from cases(f"oracles.test_nn_torch.test_{name}")
    for name in ("activations", "losses", "ties"):
        yield from cases(f"oracles.test_kinks_torch.test_{name}")
    for name in ("softmax_cross_entropy", "binary_cross_entropy", "regression"):
        yield from cases(f"oracles.test_nn_torch.test_{name}", **plain)
    yield from cases("oracles.test_conv_torch.test_conv", kernel=[2, 3])
    yield from cases("oracles.test_conv_torch.test_pooling")
    yield from cases("oracles.test_conv_torch.test_small_network")
    for name in ("batch_norm_over_several_steps", "absent_samples_are_a_smaller_batch", "layer_norm", "embedding"):
        yield from cases(f"oracles.test_layers_torch.test_{name}")
    yield from cases("oracles.test_layers_torch.test_dropout_keeps_the_mean_and_the_variance_of_torch")
    yield from cases("oracles.test_layers_torch.test_residual")


CHECKS: dict[str, Callable[[], Iterator[Cell]]] = {
    "gradient check, batch 1": lambda: gradient_check(1),
    "gradient check, batch 7": lambda: gradient_check(7),
    "equations": equations,
    "by hand": by_hand,
    TORCH: torch,
    "kinks": kinks,
    "extreme values": extremes,
    "optimizers": optimizers,
    "purity": purity,
    "dtypes": dtypes,
    "evaluation mode": evaluation,
    "validation": validation,
    "loop": loop,
    "files": files,
    "relations": relations,
    "options": options,
    "backends": backends,
}
