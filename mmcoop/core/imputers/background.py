"""A background: samples that say what is put in place of a modality that is absent."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from mmcoop.core.imputers.user_batch import admitted, from_sequence
from mmcoop.core.pytree import batch_size, take, tree_map
from mmcoop.core.seeds import derive_seed
from mmcoop.errors import DataError

#: Nested tensors by modality, samples first.
Inputs = dict[str, Any]


def background_inputs(background: Any, modalities: Sequence[str]) -> Iterator[Inputs]:
    """The inputs of each batch of a background, of these modalities.

    A background is an iterable of batches, or one of them: inputs by modality, or what has them as
    `inputs`, a key or an attribute. In an iterable, a batch may also be a tuple or list, as
    `read_batch` takes it. Raises `DataError` for a modality without input and for
    tensors of different numbers of samples.
    """
    alone = isinstance(background, Mapping) or hasattr(background, "inputs")
    if not alone and (isinstance(background, str | Tensor) or not isinstance(background, Iterable)):
        raise DataError(
            f"the background is a {type(background).__name__}: give an iterable of batches, or the "
            "inputs of one by modality"
        )
    for batch in [background] if alone else background:
        inputs = _inputs(batch, modalities)
        missing = [m for m in modalities if m not in inputs]
        if missing:
            raise DataError(
                f"the background has no input for the modality {missing[0]!r}; it has: "
                f"{', '.join(sorted(map(str, inputs))) or 'none'}"
            )
        chosen = {m: admitted(m, inputs[m]) for m in modalities}
        batch_size(chosen)
        yield chosen


def mean_of(batches: Iterable[tuple[int, Inputs]]) -> Inputs:
    """The mean over all samples, `(1, …)` for each tensor; `batches` are `(samples, tensors)`.

    Sums are in double precision; no more than one batch is held. Raises `DataError`, naming the
    modality, for whole numbers, for samples of different shapes, and where the mean is not finite.
    """
    count, total, like = 0, None, None
    for rows, inputs in batches:
        if rows == 0:
            continue
        sums = {m: tree_map(lambda x, m=m: _sum(x, m), nested) for m, nested in inputs.items()}
        total = sums if total is None else {m: _added(m, total[m], sums[m]) for m in sums}
        like, count = inputs, count + rows
    if total is None or like is None:
        raise DataError("the background has no sample")
    return {
        m: tree_map(lambda s, x, m=m: _finite(s / count, m).to(x.dtype), total[m], like[m])
        for m in total
    }


def drawn_samples(batches: Iterable[Inputs], draws: int, seed: int) -> Inputs:
    """`draws` samples at random, none of them twice, as one batch; all, if there are fewer.

    Which ones depends on the seed and on the order of the samples, not on how they are batched.
    No more than one batch and the samples drawn so far are held. What varies in length is padded
    with zeros at its end. Raises `DataError` where there is no sample.
    """
    chance = random.Random(derive_seed(seed, "background"))
    drawn: list[tuple[float, Inputs]] = []
    for inputs in batches:
        for row in range(batch_size(inputs)):
            # every sample has a number; those of the lowest numbers are drawn
            number = chance.random()
            if len(drawn) < draws or number < drawn[-1][0]:
                drawn.append((number, take(inputs, torch.tensor([row]))))
                drawn.sort(key=itemgetter(0))
                del drawn[draws:]
    if not drawn:
        raise DataError("the background has no sample")
    samples = [sample for _, sample in drawn]
    joined: Inputs = tree_map(lambda *xs: torch.cat(equally_long(*xs)), *samples)
    return joined


def equally_long(*tensors: Tensor) -> list[Tensor]:
    """The tensors with zeros at the end of each dimension after the first, up to the longest.

    Raises `DataError` where they differ in the number of dimensions.
    """
    if len({x.dim() for x in tensors}) > 1:
        shapes = " and ".join(str(tuple(x.shape[1:])) for x in tensors)
        raise DataError(f"samples of shapes {shapes} cannot be padded to one length")
    longest = [max(sizes) for sizes in zip(*(x.shape[1:] for x in tensors), strict=True)]
    return [_padded(x, longest) for x in tensors]


def _padded(x: Tensor, sizes: list[int]) -> Tensor:
    if list(x.shape[1:]) == sizes:
        return x
    padded = x.new_zeros(len(x), *sizes)
    padded[(slice(None), *map(slice, x.shape[1:]))] = x
    return padded


def _inputs(batch: Any, modalities: Sequence[str]) -> Mapping[str, Any]:
    if isinstance(batch, Mapping):
        plain = "inputs" not in batch or all(m in batch for m in modalities)
        inputs = batch if plain else batch["inputs"]
    elif isinstance(batch, tuple | list) and not hasattr(batch, "inputs"):
        inputs, _ = from_sequence(batch, modalities)
    else:
        inputs = getattr(batch, "inputs", None)
    if not isinstance(inputs, Mapping):
        raise DataError(
            "a batch of the background must be inputs by modality, or have `inputs`, or be a tuple "
            "of the inputs in the order of the modalities, with labels or without"
        )
    return inputs


def _sum(x: Tensor, modality: str) -> Tensor:
    if not (x.is_floating_point() or x.is_complex()):
        raise DataError(
            f"the modality {modality!r} holds {x.dtype}, of which there is no mean: choose "
            "absent='zero' or absent='marginal'"
        )
    wide = torch.complex128 if x.is_complex() else torch.float64
    return x.sum(0, keepdim=True, dtype=wide)


def _added(modality: str, total: Any, sums: Any) -> Any:
    def add(a: Tensor, b: Tensor) -> Tensor:
        if a.shape != b.shape:
            raise DataError(
                f"samples of the modality {modality!r} have shapes {tuple(a.shape[1:])} and "
                f"{tuple(b.shape[1:])} in the background, of which there is no mean: choose "
                "absent='zero' or absent='marginal'"
            )
        return a + b

    return tree_map(add, total, sums)


def _finite(mean: Tensor, modality: str) -> Tensor:
    if not mean.isfinite().all():
        raise DataError(
            f"the mean of the modality {modality!r} is not a number: its background holds NaN or "
            "infinity"
        )
    return mean
