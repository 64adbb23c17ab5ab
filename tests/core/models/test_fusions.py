"""Fusions: the features of the present modalities → class logits."""

import inspect
import math

import pytest
import torch
from torch import Tensor, nn

from mmcoop.core.games.coalitions import coalition_matrix
from mmcoop.core.models.encoders.base import Encoder
from mmcoop.core.models.encoders.conv import ConvEncoder
from mmcoop.core.models.fusions import FUSIONS, build_fusion
from mmcoop.core.models.fusions.base import AdditiveFusion, Features, Fusion
from mmcoop.core.models.fusions.bilinear import LowRankBilinear
from mmcoop.core.models.fusions.bottleneck import Bottleneck
from mmcoop.core.models.fusions.concat import Concat
from mmcoop.core.models.fusions.film import FiLM, FiLMLast
from mmcoop.core.models.fusions.gated import Gated
from mmcoop.core.models.fusions.late import Late
from mmcoop.core.models.fusions.mmtm import MMTM
from mmcoop.core.models.fusions.sum import Sum
from mmcoop.core.models.fusions.transformer import TransformerFusion
from mmcoop.errors import UsageError

WIDTHS = {"audio": 2, "text": 4, "visual": 3}
BATCH, CLASSES = 5, 4


class Product(Fusion):
    """A fusion that is no sum of parts: 1 plus each present modality's part, multiplied."""

    def __init__(self, widths, n_classes):
        super().__init__(widths, n_classes)
        self.heads = nn.ModuleDict({m: nn.Linear(w, n_classes) for m, w in widths.items()})
        self.calls = 0

    def forward(self, features: Features, present):
        self.calls += 1
        logits = 1
        for position, (modality, z) in enumerate(features.items()):
            here = present[:, position, None]
            logits = logits * torch.where(here, 1 + self.heads[modality](z), 1)
        return logits


class Given(Encoder):
    """Stands where an encoder is asked for nothing but its width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x):
        return x


def with_random_weights(fusion: Fusion) -> Fusion:
    """The fusion in double precision, all its parameters random, biases too."""
    fusion = fusion.double()
    generator = torch.Generator().manual_seed(0)
    for parameter in fusion.parameters():
        numbers = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = numbers / math.sqrt(parameter.shape[1:].numel())
    return fusion


def some_features(widths=WIDTHS, batch: int = BATCH) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        m: torch.randn(batch, width, generator=generator, dtype=torch.float64)
        for m, width in widths.items()
    }


# MMTM's features are frames of maps, the bottleneck's are tokens, of any number
MAPS = {"audio": (1, 2, 3, 2), "text": (3, 4, 2, 2), "visual": (2, 6, 1, 4)}
TOKENS = {"audio": (3, 2), "text": (1, 4), "visual": (5, 3)}


def make(
    name: str, n: int = 3, batch: int = BATCH, n_classes: int = CLASSES
) -> tuple[Fusion, dict[str, Tensor]]:
    """A fusion of the first n modalities and features as it takes them, all of them random."""
    widths = dict(list(WIDTHS.items())[:n])
    torch.manual_seed(0)
    if name == "product":
        return with_random_weights(Product(widths, n_classes)), some_features(widths, batch)
    kind = FUSIONS.load(name)
    if kind.takes_vectors:
        return with_random_weights(kind(widths, n_classes)), some_features(widths, batch)
    if issubclass(kind, MMTM):
        encoders = {m: ConvEncoder((1, 9, 9), channels=MAPS[m][1]) for m in widths}
        fusion, shapes = build_fusion(name, encoders, n_classes)[1], MAPS
    else:
        fusion, shapes = kind(widths, n_classes, width=8, heads=2), TOKENS
    generator = torch.Generator().manual_seed(1)
    features = {
        m: torch.randn(batch, *shapes[m], generator=generator, dtype=torch.float64) for m in widths
    }
    return with_random_weights(fusion), features


NAMES = [*FUSIONS, "product"]
all_fusions = pytest.mark.parametrize("name", NAMES)
all_numbers = pytest.mark.parametrize("n", [1, 2, 3])
VECTOR_FUSIONS = [name for name in FUSIONS if FUSIONS.load(name).takes_vectors]


# by hand

COALITIONS = torch.tensor([[False, False], [True, False], [False, True], [True, True]])
BY_HAND = {"a": torch.tensor([[1.0, 2.0]]), "v": torch.tensor([[3.0]])}


def assert_coalitions_by_hand(fusion: Fusion, features: Features, expected: Tensor) -> None:
    torch.testing.assert_close(fusion.coalition_logits(features, COALITIONS)[0], expected)
    for present, logits in zip(COALITIONS, expected, strict=True):
        torch.testing.assert_close(fusion(features, present[None])[0], logits)


def test_concatenation_by_hand():
    # METHODS.md, section 2: W_a z_a = (1, 2), W_v z_v = (6, 3), b = (0.4, −0.2)
    fusion = Concat({"a": 2, "v": 1}, 2)
    fusion.head.weight.data = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]])
    fusion.head.bias.data = torch.tensor([0.4, -0.2])
    expected = torch.tensor([[0.4, -0.2], [1.4, 1.8], [6.4, 2.8], [7.4, 4.8]])
    assert_coalitions_by_hand(fusion, BY_HAND, expected)
    # u_m = W_m z_m + b / 2
    u = fusion.unimodal_logits(BY_HAND, COALITIONS[3:])
    torch.testing.assert_close(u, torch.tensor([[[1.2, 1.9], [6.2, 2.9]]]))


def test_sum_by_hand():
    # an absent modality's bias stays: only the sum of the biases is ever seen
    fusion = Sum({"a": 2, "v": 1}, 2)
    fusion.heads["a"].weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    fusion.heads["v"].weight.data = torch.tensor([[2.0], [1.0]])
    fusion.bias.data = torch.tensor([0.4, -0.2])
    expected = torch.tensor([[0.4, -0.2], [1.4, 1.8], [6.4, 2.8], [7.4, 4.8]])
    assert_coalitions_by_hand(fusion, BY_HAND, expected)
    u = fusion.unimodal_logits(BY_HAND, COALITIONS[3:])
    torch.testing.assert_close(u, torch.tensor([[[1.2, 1.9], [6.2, 2.9]]]))


def test_late_fusion_by_hand():
    # u_a = (1, 2) + (0.5, 0), u_v = (6, 3) + (0, −1); the mean of those present
    fusion = Late({"a": 2, "v": 1}, 2)
    fusion.heads["a"].weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    fusion.heads["a"].bias.data = torch.tensor([0.5, 0.0])
    fusion.heads["v"].weight.data = torch.tensor([[2.0], [1.0]])
    fusion.heads["v"].bias.data = torch.tensor([0.0, -1.0])
    expected = torch.tensor([[0.0, 0.0], [1.5, 2.0], [6.0, 2.0], [3.75, 2.0]])
    assert_coalitions_by_hand(fusion, BY_HAND, expected)
    u = fusion.unimodal_logits(BY_HAND, COALITIONS[3:])
    torch.testing.assert_close(u, torch.tensor([[[1.5, 2.0], [6.0, 2.0]]]))


def plain_head(n: int, bias: list[float]) -> nn.Linear:
    """Logit k is feature k, plus a bias."""
    head = nn.Linear(n, n)
    head.weight.data, head.bias.data = torch.eye(n), torch.tensor(bias)
    return head


def test_film_by_hand():
    # W_f z_a = (1, 2, 3, 0): γ = (1, 2), β = (3, 0); z_v = (2, −1) becomes (5, −2)
    fusion = FiLM({"a": 1, "v": 2}, 2)
    fusion.film["v"].weight.data = torch.tensor([[0.5], [1.0], [1.5], [0.0]])
    fusion.film["v"].bias.data = torch.zeros(4)
    fusion.head = plain_head(2, [10.0, 20.0])
    features = {"a": torch.tensor([[2.0]]), "v": torch.tensor([[2.0, -1.0]])}
    expected = torch.tensor([[10.0, 20.0], [13.0, 20.0], [10.0, 20.0], [15.0, 18.0]])
    assert_coalitions_by_hand(fusion, features, expected)


def test_film_by_the_last_modality_by_hand():
    # the same numbers with the modalities' parts exchanged
    fusion = FiLMLast({"a": 2, "v": 1}, 2)
    fusion.film["a"].weight.data = torch.tensor([[0.5], [1.0], [1.5], [0.0]])
    fusion.film["a"].bias.data = torch.zeros(4)
    fusion.head = plain_head(2, [10.0, 20.0])
    features = {"a": torch.tensor([[2.0, -1.0]]), "v": torch.tensor([[2.0]])}
    expected = torch.tensor([[10.0, 20.0], [10.0, 20.0], [13.0, 20.0], [15.0, 18.0]])
    assert_coalitions_by_hand(fusion, features, expected)


@pytest.mark.parametrize(("kind", "conditioning"), [(FiLM, "audio"), (FiLMLast, "visual")])
def test_film_modulates_each_other_modality_then_puts_them_side_by_side(kind, conditioning):
    fusion, features = with_random_weights(kind(WIDTHS, CLASSES)), some_features()
    others = [m for m in WIDTHS if m != conditioning]
    assert list(fusion.film) == others
    found = fusion(features, torch.ones(BATCH, 3, dtype=torch.bool))
    for i in range(BATCH):
        modulated = []
        for m in others:
            w, b, d = fusion.film[m].weight, fusion.film[m].bias, WIDTHS[m]
            for k in range(d):
                gamma = w[k] @ features[conditioning][i] + b[k]
                beta = w[d + k] @ features[conditioning][i] + b[d + k]
                modulated.append(gamma * features[m][i, k] + beta)
        expected = fusion.head.weight @ torch.stack(modulated) + fusion.head.bias
        torch.testing.assert_close(found[i], expected)


@pytest.mark.parametrize("kind", [FiLM, FiLMLast])
def test_at_first_the_others_pass_film_unchanged_where_the_conditioning_modality_is_absent(kind):
    fusion = kind(WIDTHS, CLASSES).double()
    features = some_features()
    present = torch.tensor([[m != fusion.condition for m in WIDTHS]] * BATCH)
    side_by_side = torch.cat([features[m] for m in WIDTHS if m != fusion.condition], dim=1)
    torch.testing.assert_close(fusion(features, present), fusion.head(side_by_side))


def test_film_of_one_modality_is_modulated_by_itself():
    fusion = FiLM({"v": 1}, 1)
    fusion.film["v"].weight.data = torch.tensor([[2.0], [3.0]])
    fusion.film["v"].bias.data = torch.tensor([1.0, 0.5])
    fusion.head = plain_head(1, [0.0])
    # γ = 2·5 + 1, β = 3·5 + 0.5
    found = fusion({"v": torch.tensor([[5.0]])}, torch.tensor([[True]]))
    assert found.tolist() == [[11 * 5 + 15.5]]


def test_gated_fusion_by_hand():
    # h_a = (0, ln 3): gates (1/2, 3/4); h_v = (2, 4) becomes (1, 3)
    fusion = Gated({"a": 1, "v": 1}, 2, width=2)
    fusion.layers["a"].weight.data = torch.tensor([[0.0], [1.0]])
    fusion.layers["a"].bias.data = torch.tensor([0.0, math.log(3) - 7])
    fusion.layers["v"].weight.data = torch.tensor([[1.0], [2.0]])
    fusion.layers["v"].bias.data = torch.tensor([1.0, 2.0])
    fusion.head = plain_head(2, [10.0, 20.0])
    features = {"a": torch.tensor([[7.0]]), "v": torch.tensor([[1.0]])}
    # alone, the biases gate and are gated: (1, 2) at σ(0), σ(ln 3 − 7)
    low = 1 / (1 + math.exp(7) / 3)
    expected = torch.tensor(
        [
            [10 + 1 / 2, 20 + 2 * low],
            [10 + 1 / 2, 20 + 2 * 3 / 4],
            [10 + 2 / 2, 20 + 4 * low],
            [11.0, 23.0],
        ]
    )
    assert_coalitions_by_hand(fusion, features, expected)


def test_all_modalities_but_the_last_gate_it():
    fusion, features = with_random_weights(Gated(WIDTHS, CLASSES, width=6)), some_features()
    found = fusion(features, torch.ones(BATCH, 3, dtype=torch.bool))
    h = {
        m: torch.einsum("bd,kd->bk", features[m], fusion.layers[m].weight) + fusion.layers[m].bias
        for m in WIDTHS
    }
    gates = 1 / (1 + (-h["audio"]).exp()) / (1 + (-h["text"]).exp())
    expected = torch.einsum("bk,ck->bc", gates * h["visual"], fusion.head.weight)
    torch.testing.assert_close(found, expected + fusion.head.bias)


@all_numbers
def test_bilinear_fusion_is_a_plain_loop_over_ranks_and_modalities(n):
    fusion, features = make("bilinear", n)
    widths = dict(list(WIDTHS.items())[:n])
    found = fusion.coalition_logits(features, coalition_matrix(n))
    for i in range(BATCH):
        for s, members in enumerate(coalition_matrix(n).tolist()):
            logits = fusion.head.bias.tolist()
            for r in range(32):
                product = 1.0
                for m, member in zip(widths, members, strict=True):
                    # U_m [z; 1], of which the constant alone is left of an absent modality
                    term = float(fusion.factors[m].bias[r])
                    for k in range(widths[m] if member else 0):
                        term += float(fusion.factors[m].weight[r, k] * features[m][i, k])
                    product *= term
                for c in range(CLASSES):
                    logits[c] += float(fusion.head.weight[c, r]) * product
            assert found[i, s].tolist() == pytest.approx(logits, rel=1e-9, abs=1e-9)


def test_bilinear_fusion_begins_with_constants_of_1_and_has_the_rank_asked_for():
    fusion = LowRankBilinear(WIDTHS, CLASSES, rank=5)
    assert all(factor.bias.tolist() == [1.0] * 5 for factor in fusion.factors.values())
    assert fusion.head.in_features == 5
    nobody = fusion({m: z.float() for m, z in some_features().items()}, coalition_matrix(3)[:1])
    torch.testing.assert_close(nobody[0], fusion.head.weight.sum(1) + fusion.head.bias)


def test_concatenation_is_the_plain_linear_layer_on_features_with_absent_ones_zeroed():
    fusion = with_random_weights(Concat(WIDTHS, CLASSES))
    features = some_features()
    found = fusion.coalition_logits(features, coalition_matrix(3))
    for column, row in enumerate(coalition_matrix(3).tolist()):
        side_by_side = torch.cat(
            [z * member for z, member in zip(features.values(), row, strict=True)], dim=1
        )
        torch.testing.assert_close(found[:, column], fusion.head(side_by_side))


def test_sum_is_the_sum_of_linear_heads_on_features_with_absent_ones_zeroed():
    fusion = with_random_weights(Sum(WIDTHS, CLASSES))
    features = some_features()
    found = fusion.coalition_logits(features, coalition_matrix(3))
    for column, row in enumerate(coalition_matrix(3).tolist()):
        expected = fusion.bias.expand(BATCH, -1)
        for (modality, z), member in zip(features.items(), row, strict=True):
            expected = expected + z * member @ fusion.heads[modality].weight.T
        torch.testing.assert_close(found[:, column], expected)


def test_late_fusion_is_the_mean_of_the_present_heads_logits():
    fusion = with_random_weights(Late(WIDTHS, CLASSES))
    features = some_features()
    found = fusion.coalition_logits(features, coalition_matrix(3))
    assert (found[:, 0] == 0).all()
    for column, row in list(enumerate(coalition_matrix(3).tolist()))[1:]:
        logits = [
            fusion.heads[m](features[m]) for m, member in zip(WIDTHS, row, strict=True) if member
        ]
        torch.testing.assert_close(found[:, column], sum(logits) / len(logits))


# transformers, against attention written out for one sample and without its absent modalities


def normed(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    return centred / scale * norm.weight + norm.bias


def layer_by_hand(layer: nn.TransformerEncoderLayer, x: Tensor) -> Tensor:
    """One pre-norm layer on the tokens `(tokens, width)` of one sample, head by head."""
    attention = layer.self_attn
    q, k, v = (normed(x, layer.norm1) @ attention.in_proj_weight.T + attention.in_proj_bias).split(
        x.shape[1], dim=1
    )
    d = x.shape[1] // attention.num_heads
    heads = []
    for start in range(0, x.shape[1], d):
        part = slice(start, start + d)
        weights = (q[:, part] @ k[:, part].T / math.sqrt(d)).exp()
        heads.append(weights / weights.sum(1, keepdim=True) @ v[:, part])
    out = attention.out_proj
    x = x + torch.cat(heads, dim=1) @ out.weight.T + out.bias
    hidden = (normed(x, layer.norm2) @ layer.linear1.weight.T + layer.linear1.bias).clamp(min=0)
    return x + hidden @ layer.linear2.weight.T + layer.linear2.bias


def transformer_by_hand(fusion: TransformerFusion, features: Features, members) -> Tensor:
    """Logits of sample 0 from the modalities that are members; the others do not occur."""
    tokens = [
        fusion.tokens[m].weight @ z[0] + fusion.tokens[m].bias
        for (m, z), member in zip(features.items(), members, strict=True)
        if member
    ]
    x = torch.stack([fusion.class_token, *tokens])
    for layer in fusion.layers.layers:
        x = layer_by_hand(layer, x)
    return fusion.head(normed(x, fusion.layers.norm)[0])


def bottleneck_by_hand(fusion: Bottleneck, features: Features, members) -> Tensor:
    """Logits of sample 0 from the modalities that are members; the others do not occur."""
    streams = {
        m: z[0] @ fusion.project[m].weight.T + fusion.project[m].bias
        for (m, z), member in zip(features.items(), members, strict=True)
        if member
    }
    shared = fusion.bottleneck
    for blocks in fusion.blocks:
        seen = []
        for m, tokens in streams.items():
            both = layer_by_hand(blocks[m], torch.cat([tokens, shared]))
            streams[m] = both[: len(tokens)]
            seen.append(both[len(tokens) :])
        shared = sum(seen) / len(seen)
    said = [fusion.head(normed(tokens, fusion.norm).mean(0)) for tokens in streams.values()]
    return sum(said) / len(said)


@all_numbers
def test_a_transformer_attends_to_the_class_token_and_the_present_modalities_alone(n):
    fusion, features = make("transformer", n, batch=1)
    found = fusion.coalition_logits(features, coalition_matrix(n))[0]
    for logits, members in zip(found, coalition_matrix(n).tolist(), strict=True):
        torch.testing.assert_close(logits, transformer_by_hand(fusion, features, members))


@all_numbers
def test_in_a_bottleneck_modalities_meet_in_the_mean_of_the_shared_tokens_of_those_present(n):
    fusion, features = make("bottleneck", n, batch=1)
    found = fusion.coalition_logits(features, coalition_matrix(n))[0]
    assert (found[0] == 0).all()
    for logits, members in zip(found[1:], coalition_matrix(n)[1:].tolist(), strict=True):
        torch.testing.assert_close(logits, bottleneck_by_hand(fusion, features, members))


class Plus(nn.Module):
    """A block that adds a number to everything, and keeps what came in."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number
        self.seen: list[Tensor] = []

    def forward(self, x):
        self.seen.append(x)
        return x + self.number


@pytest.mark.parametrize(
    ("members", "shared"), [((True, True), 2.0), ((True, False), 1.0), ((False, True), 3.0)]
)
def test_bottlenecks_are_averaged_by_hand(members, shared):
    # blocks adding 1 and 3 to everything: the bottleneck goes from 0 to 2, tokens by 1 and 3
    fusion = Bottleneck({"a": 2, "v": 2}, 2, width=2, heads=1, tokens=1)
    for m in "av":
        fusion.project[m] = plain_head(2, [0.0, 0.0])
    blocks = [{"a": Plus(1), "v": Plus(3)} for _ in range(2)]
    fusion.blocks = nn.ModuleList(nn.ModuleDict(b) for b in blocks)
    fusion.bottleneck.data = torch.zeros(1, 2)
    features = {"a": torch.tensor([[[10.0, 10.0]]]), "v": torch.tensor([[[20.0, 20.0]] * 2])}
    fusion(features, torch.tensor([members]))
    if members[0]:
        assert blocks[0]["a"].seen[0].tolist() == [[[10, 10], [0, 0]]]
        assert blocks[1]["a"].seen[0].tolist() == [[[11, 11], [shared, shared]]]
    if members[1]:
        assert blocks[0]["v"].seen[0].tolist() == [[[20, 20], [20, 20], [0, 0]]]
        assert blocks[1]["v"].seen[0].tolist() == [[[23, 23], [23, 23], [shared, shared]]]


def test_the_bottleneck_begins_as_four_small_random_tokens():
    torch.manual_seed(0)
    shared = Bottleneck(WIDTHS, CLASSES).bottleneck
    assert shared.shape == (4, 128)
    assert float(shared.std()) == pytest.approx(0.02, rel=0.2)
    assert abs(float(shared.mean())) < 0.005


@pytest.mark.parametrize("name", ["transformer", "bottleneck"])
def test_transformers_say_in_evaluation_what_they_say_in_training(name):
    fusion, features = make(name, batch=8)
    fusion.float()
    features = {m: z.float() for m, z in features.items()}
    trained = fusion(features, coalition_matrix(3))
    with torch.inference_mode():
        found = fusion.eval()(features, coalition_matrix(3))
        held = {
            m: torch.where(here.view(-1, *[1] * (z.dim() - 1)), z, torch.nan)
            for (m, z), here in zip(features.items(), coalition_matrix(3).unbind(1), strict=True)
        }
        assert torch.equal(fusion(held, coalition_matrix(3)), found)
    torch.testing.assert_close(found, trained, atol=1e-5, rtol=1e-5)


# properties of all of them


@all_fusions
@all_numbers
def test_coalition_logits_are_forward_run_once_a_coalition(name, n):
    fusion, features = make(name, n)
    coalitions = coalition_matrix(n)
    found = fusion.coalition_logits(features, coalitions)
    assert found.shape == (BATCH, 2**n, CLASSES)
    for column, row in enumerate(coalitions):
        torch.testing.assert_close(found[:, column], fusion(features, row.expand(BATCH, -1)))
    # and all coalitions differ, so a mix-up of columns cannot pass
    for column in range(2**n - 1):
        assert (found[:, column] - found[:, column + 1]).abs().max() > 0.01


@all_fusions
def test_the_general_form_of_coalition_logits_gives_the_same(name):
    fusion, features = make(name)
    coalitions = coalition_matrix(3)
    torch.testing.assert_close(
        Fusion.coalition_logits(fusion, features, coalitions),
        fusion.coalition_logits(features, coalitions),
    )


def test_the_general_form_runs_the_fusion_once_for_all_coalitions():
    fusion = with_random_weights(Product(WIDTHS, CLASSES))
    fusion.coalition_logits(some_features(), coalition_matrix(3))
    assert fusion.calls == 1


@all_fusions
def test_coalitions_are_answered_in_the_order_asked_for(name):
    fusion, features = make(name)
    everything = fusion.coalition_logits(features, coalition_matrix(3))
    order = [6, 1, 1, 4]
    torch.testing.assert_close(
        fusion.coalition_logits(features, coalition_matrix(3)[order]), everything[:, order]
    )


@all_fusions
def test_rows_with_different_modalities_share_a_batch(name):
    fusion, features = make(name, batch=8)
    present = coalition_matrix(3)
    together = fusion(features, present)
    for i in range(8):
        alone = fusion({m: z[i : i + 1] for m, z in features.items()}, present[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone)


@pytest.mark.parametrize("name", FUSIONS)
@all_numbers
@pytest.mark.parametrize("held", [float("nan"), 1e30])
def test_what_is_held_in_place_of_absent_features_reaches_neither_logits_nor_gradients(
    name, n, held
):
    # row i of the batch has the modalities of coalition i
    fusion, features = make(name, n, batch=2**n)
    present = coalition_matrix(n)

    def run(features):
        leaves = {m: z.clone().requires_grad_() for m, z in features.items()}
        fusion.zero_grad()
        logits = fusion(leaves, present)
        torch.sin(logits).sum().backward()
        gradients = {name: p.grad.clone() for name, p in fusion.named_parameters()}
        return logits.detach(), gradients, {m: z.grad for m, z in leaves.items()}

    logits, gradients, of_features = run(features)
    for column, z in enumerate(features.values()):
        z[~present[:, column]] = held
    found_logits, found_gradients, found_of_features = run(features)
    assert torch.equal(found_logits, logits)
    for key, gradient in gradients.items():
        assert torch.equal(found_gradients[key], gradient), key
        assert gradient.isfinite().all()
        assert n == 1 or (gradient != 0).any(), key
    for column, m in enumerate(features):
        assert torch.equal(found_of_features[m], of_features[m])
        assert (of_features[m][~present[:, column]] == 0).all()
        assert (of_features[m][present[:, column]].flatten(1) != 0).any(1).all()


@pytest.mark.parametrize("held", [float("nan"), 1e30])
@all_fusions
def test_what_a_modalitys_features_hold_does_not_matter_to_coalitions_without_it(name, held):
    fusion, features = make(name)
    without = coalition_matrix(3)[~coalition_matrix(3)[:, 1]]
    expected = fusion.coalition_logits(features, without)
    features["text"] = torch.full_like(features["text"], held)
    torch.testing.assert_close(fusion.coalition_logits(features, without), expected)


@pytest.mark.parametrize("name", FUSIONS)
def test_gradients_are_those_of_finite_differences(name):
    fusion, features = make(name, batch=4)
    present = coalition_matrix(3)[[7, 5, 3, 6]]

    def logits(*leaves):
        return fusion(dict(zip(features, leaves, strict=True)), present)

    leaves = [z.requires_grad_() for z in features.values()]
    assert torch.autograd.gradcheck(logits, leaves, fast_mode=True)


@all_fusions
def test_a_batch_of_no_samples_has_no_logits(name):
    fusion, features = make(name, batch=0)
    assert fusion(features, torch.zeros(0, 3, dtype=torch.bool)).shape == (0, CLASSES)


@all_fusions
def test_a_batch_of_no_samples_has_no_coalition_logits(name):
    fusion, features = make(name, batch=0)
    assert fusion.coalition_logits(features, coalition_matrix(3)).shape == (0, 8, CLASSES)


def test_an_additive_fusion_without_a_join_is_the_sum_of_its_parts():
    class Plain(AdditiveFusion):
        def parts(self, features):
            return torch.stack(list(features.values()), dim=1)

    plain = Plain({"a": 2, "b": 2}, 2)
    features = {"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor([[10.0, 20.0]])}
    found = plain.coalition_logits(features, coalition_matrix(2))
    assert found.tolist() == [[[0, 0], [1, 2], [10, 20], [11, 22]]]
    assert plain(features, torch.tensor([[False, True]])).tolist() == [[10, 20]]


# what each modality says by itself

UNIMODAL = ["concat", "sum", "late", "mmtm", "mmtm-2x"]


def test_the_fusions_with_unimodal_logits_say_so():
    assert [name for name in FUSIONS if FUSIONS.load(name).has_unimodal_logits] == UNIMODAL
    assert [name for name in FUSIONS if not FUSIONS.load(name).takes_vectors] == [
        "bottleneck",
        "mmtm",
        "mmtm-2x",
    ]


@pytest.mark.parametrize("name", [name for name in FUSIONS if name not in UNIMODAL])
def test_the_others_have_none(name):
    fusion, features = make(name)
    with pytest.raises(NotImplementedError):
        fusion.unimodal_logits(features, torch.ones(BATCH, 3, dtype=torch.bool))


@pytest.mark.parametrize("name", ["concat", "sum"])
@all_numbers
def test_unimodal_logits_sum_to_the_joint_logits(name, n):
    fusion, features = make(name, n, batch=2**n)
    present = coalition_matrix(n)
    u = fusion.unimodal_logits(features, present)
    assert u.shape == (2**n, n, CLASSES)
    torch.testing.assert_close(u.sum(1), fusion(features, present))
    # u_m is f(m) without the other modalities' shares of the bias
    alone = fusion.coalition_logits(features, torch.eye(n, dtype=torch.bool))
    nobody = fusion.coalition_logits(features, torch.zeros(1, n, dtype=torch.bool))
    expected = alone - nobody * (n - 1) / n
    for i, m in present.nonzero():
        torch.testing.assert_close(u[i, m], expected[i, m])


@pytest.mark.parametrize("name", ["late", "mmtm", "mmtm-2x"])
@all_numbers
def test_unimodal_logits_of_those_present_average_to_the_joint_logits(name, n):
    fusion, features = make(name, n, batch=2**n)
    present = coalition_matrix(n)
    u = fusion.unimodal_logits(features, present)
    assert u.shape == (2**n, n, CLASSES)
    for i in range(1, 2**n):
        torch.testing.assert_close(
            u[i, present[i]].mean(0), fusion(features, present)[i], atol=1e-12, rtol=1e-12
        )


@pytest.mark.parametrize("name", UNIMODAL)
@pytest.mark.parametrize("held", [float("nan"), 1e30])
def test_what_an_absent_modalitys_features_hold_does_not_matter_to_unimodal_logits(name, held):
    fusion, features = make(name, batch=8)
    present = coalition_matrix(3)
    expected = fusion.unimodal_logits(features, present)
    assert expected.isfinite().all()
    for column, z in enumerate(features.values()):
        z[~present[:, column]] = held
    assert torch.equal(fusion.unimodal_logits(features, present), expected)


# by name


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("concat", Concat),
        ("sum", Sum),
        ("late", Late),
        ("film", FiLM),
        ("film-last", FiLMLast),
        ("gated", Gated),
        ("bilinear", LowRankBilinear),
        ("transformer", TransformerFusion),
    ],
)
def test_a_fusion_of_vectors_is_built_by_its_name_and_takes_the_encoders_as_they_are(name, kind):
    given = {"audio": Given(2), "visual": Given(3)}
    encoders, fusion = build_fusion(name, given, 7)
    assert type(fusion) is kind
    assert encoders is given
    features = {"audio": torch.ones(1, 2), "visual": torch.ones(1, 3)}
    assert fusion(features, torch.ones(1, 2, dtype=torch.bool)).shape == (1, 7)


def test_a_bottleneck_takes_the_encoders_features_by_place():
    torch.manual_seed(0)
    given = {"audio": Given(2), "visual": ConvEncoder((1, 8, 8), channels=4)}
    encoders, fusion = build_fusion("bottleneck", given, 7)
    assert type(fusion) is Bottleneck
    assert {m: e.width for m, e in encoders.items()} == {"audio": 2, "visual": 8}
    x = torch.randn(3, 1, 8, 8)
    features = {m: encoders[m](x if m == "visual" else torch.ones(3, 2)) for m in given}
    assert features["audio"].tolist() == [[[1, 1]]] * 3
    assert torch.equal(features["visual"], given["visual"].tokens(x))
    assert features["visual"].shape == (3, 4, 8)
    assert fusion(features, torch.ones(3, 2, dtype=torch.bool)).shape == (3, 7)
    # of nobody's tokens one is left, of zeros
    nobody = encoders["visual"].absent(3, x)
    assert nobody.shape == (3, 1, 8)
    assert (nobody == 0).all()


@pytest.mark.parametrize("name", VECTOR_FUSIONS)
def test_the_sizes_of_a_fusion_have_defaults(name):
    parameters = list(inspect.signature(FUSIONS.load(name)).parameters.values())
    assert all(p.default is not inspect.Parameter.empty for p in parameters[2:])


def test_an_unknown_fusion_is_refused_with_the_legal_names():
    with pytest.raises(
        UsageError,
        match="^unknown fusion 'tensor': choose one of concat, sum, late, film, film-last, gated, "
        "bilinear, transformer, bottleneck, mmtm, mmtm-2x$",
    ):
        build_fusion("tensor", {"audio": Given(2)}, 2)
