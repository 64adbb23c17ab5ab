"""Shapley values from some of the coalitions: the axioms, exact ones, plain loops, their errors."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from mmcoop.core.games import estimators
from mmcoop.core.games.coalitions import anchor_coalitions, coalition_matrix
from mmcoop.core.games.estimators import (
    ESTIMATORS,
    Estimate,
    check_budget,
    default_budget,
    least_budget,
    sampled_values,
)
from mmcoop.core.games.shapley import shapley_values
from mmcoop.errors import UsageError

BOTH = pytest.mark.parametrize("estimator", ["permutation", "kernel"])


class Table:
    """Games given by their tables, `(samples, 2**n)`, that note which rows they are asked for."""

    def __init__(self, values) -> None:
        self.values = torch.as_tensor(values, dtype=torch.float64)
        self.n = self.values.shape[1].bit_length() - 1
        self.bits = 2 ** torch.arange(self.n)
        self.asked: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __call__(self, sample, present):
        self.asked.append((sample, present))
        return self.values[sample, (present * self.bits).sum(1)].unsqueeze(1)

    @property
    def known(self):
        return self.values[:, (anchor_coalitions(self.n) * self.bits).sum(1)].unsqueeze(-1)

    def rows_of(self, sample: int) -> torch.Tensor:
        """The coalitions that one sample was asked for, in order."""
        return torch.cat([present[which == sample] for which, present in self.asked])


def estimated(estimator, values, budget=None, seeds=None, tolerance=None) -> Estimate:
    """`contributions` and `stderr` are `(samples, n)`: there is one game a sample."""
    table = values if isinstance(values, Table) else Table(values)
    seeds = range(len(table.values)) if seeds is None else seeds
    found = sampled_values(
        estimator,
        table,
        table.known,
        [torch.Generator().manual_seed(10_000 + seed) for seed in seeds],
        n_modalities=table.n,
        budget=budget or least_budget(estimator, table.n),
        tolerance=tolerance,
    )
    return Estimate(found.contributions[..., 0], found.stderr[..., 0], found.draws)


def normal_games(games: int, n: int, seed: int = 0) -> torch.Tensor:
    """Games whose values have nothing to do with each other."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(games, 2**n, generator=generator, dtype=torch.float64)


def smooth_games(games: int, n: int, seed: int = 0) -> torch.Tensor:
    """A sigmoid of what each modality says and of what each pair says together."""
    generator = torch.Generator().manual_seed(seed)
    alone = torch.randn(games, n, generator=generator, dtype=torch.float64)
    pairs = torch.randn(games, n, n, generator=generator, dtype=torch.float64)
    m = coalition_matrix(n).double()
    return torch.sigmoid(alone @ m.T + torch.einsum("kn,gnm,km->gk", m, pairs, m) / 2)


def paper_games(games: int, n: int, seed: int = 0) -> torch.Tensor:
    """The paper's value of sums of logits: whole numbers, 0 where the prediction is wrong."""
    generator = torch.Generator().manual_seed(seed)
    parts = torch.randn(games, n, 4, generator=generator, dtype=torch.float64)
    parts[:, :, 0] += 0.4
    m = coalition_matrix(n).double()
    right = torch.einsum("kn,gnc->gkc", m, parts).argmax(2) == 0
    return right * m.sum(1)


@st.composite
def games(draw, least: int = 1, most: int = 12, samples: int = 2):
    """(estimator, n, table `(samples, 2**n)`): values around 0, whole numbers in places."""
    n = draw(st.integers(least, most))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.normal(scale=3, size=(samples, 2**n))
    if draw(st.booleans()):
        values = values.round()
    return draw(st.sampled_from(sorted(ESTIMATORS))), n, values


def without_effect(values: np.ndarray, null: int) -> np.ndarray:
    """The games in which one modality changes nothing."""
    s = np.arange(values.shape[1])
    return values[:, s & ~(1 << null)]


# --- the axioms


@settings(deadline=None, max_examples=60)
@given(games())
def test_efficiency_contributions_sum_to_grand_less_empty(game):
    estimator, _, values = game
    found = estimated(estimator, values)
    np.testing.assert_allclose(
        found.contributions.sum(1), values[:, -1] - values[:, 0], rtol=0, atol=1e-12
    )


@settings(deadline=None, max_examples=60)
@given(games(), st.data())
def test_a_null_player_gets_nothing(game, data):
    estimator, n, values = game
    null = data.draw(st.integers(0, n - 1))
    # least squares know it only up to their error (below)
    estimator = "permutation" if n > 3 else estimator
    found = estimated(estimator, without_effect(values, null))
    np.testing.assert_allclose(found.contributions[:, null], 0, atol=1e-14)
    np.testing.assert_allclose(found.stderr[:, null], 0, atol=1e-14)


@pytest.mark.parametrize("n", [5, 8, 11])
def test_nothing_is_in_a_null_players_interval_of_the_kernel_as_often_as_it_says(n):
    found = estimated("kernel", without_effect(normal_games(2000, n).numpy(), 3), 256)
    inside = found.contributions[:, 3].abs() <= quantile(found) * found.stderr[:, 3]
    assert 0.93 <= inside.double().mean() <= 0.97


def with_draws(estimator, values, uniform):
    """Contributions and standard errors `(n,)` of one game, from numbers that are given."""
    table = Table(values)
    sampler = ESTIMATORS[estimator](table.known, table.n)
    sampler.add(table, torch.arange(1), uniform)
    return [x[0, :, 0] for x in sampler.estimate(torch.arange(1))], table


def uniform_numbers(estimator, n, pairs, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, pairs, ESTIMATORS[estimator].needs(n).uniform, generator=generator)


@settings(deadline=None, max_examples=40)
@given(games(least=4, samples=1), st.data())
def test_symmetry_renaming_the_modalities_and_what_is_drawn_renames_the_contributions(game, data):
    estimator, n, values = game
    old = torch.tensor(data.draw(st.permutations(range(n))))  # the old name of each modality
    renamed = values[:, (coalition_matrix(n) * 2**old).sum(1)]
    uniform = uniform_numbers(estimator, n, 3 * n)
    (phi, stderr), _ = with_draws(estimator, values, uniform)
    uniform[..., :n] = uniform[..., old]
    (phi_renamed, stderr_renamed), _ = with_draws(estimator, renamed, uniform)
    torch.testing.assert_close(phi_renamed, phi[old], atol=1e-10, rtol=0)
    torch.testing.assert_close(stderr_renamed, stderr[old], atol=1e-10, rtol=0)


@BOTH
def test_symmetry_interchangeable_modalities_get_the_same_on_average_over_draws(estimator):
    n, draws = 6, 2000
    values = smooth_games(1, n)
    for s in range(2**n):  # the first two are interchangeable
        if s & 3 == 2:
            values[:, s] = values[:, s ^ 3]
    phi = estimated(estimator, values.expand(draws, -1), 300).contributions
    apart = phi[:, 0] - phi[:, 1]
    assert apart.std() > 0
    assert apart.mean().abs() < 4 * apart.std() / draws**0.5


@settings(deadline=None, max_examples=60)
@given(games(samples=2), st.floats(-10, 10), st.floats(-10, 10))
def test_linearity_with_the_same_draws_contributions_of_a_mixed_game_are_mixed(game, a, b):
    estimator, n, values = game
    # three games of one sample at once: they share what is drawn
    mixed = torch.as_tensor(np.stack([*values, a * values[0] + b * values[1]], axis=1)[None])
    bits = 2 ** torch.arange(n)
    found = sampled_values(
        estimator,
        lambda sample, present: mixed[sample, (present * bits).sum(1)],
        mixed[:, (anchor_coalitions(n) * bits).sum(1)],
        [torch.Generator().manual_seed(0)],
        n_modalities=n,
        budget=least_budget(estimator, n),
    ).contributions[0]
    np.testing.assert_allclose(found[:, 2], a * found[:, 0] + b * found[:, 1], atol=1e-9)
    # and several games at once are those games one by one
    for k in range(2):
        alone = estimated(estimator, mixed[:, :, k], seeds=[-10_000])
        np.testing.assert_allclose(found[:, k], alone.contributions[0], atol=1e-10)


# --- known answers


@BOTH
@pytest.mark.parametrize("n", [1, 2, 3])
def test_up_to_three_modalities_are_exact_and_nothing_is_drawn(estimator, n):
    table = Table(normal_games(5, n))
    found = estimated(estimator, table, 2**n)
    torch.testing.assert_close(found.contributions, shapley_values(table.values))
    assert (found.stderr == 0).all()
    assert found.draws.tolist() == [0] * 5
    assert table.asked == []


@BOTH
@pytest.mark.parametrize("n", [4, 7, 12, 40])
def test_games_in_which_no_more_than_pairs_interact_are_recovered_without_error(estimator, n):
    # what a pair adds is shared equally; a coalition and its complement, or an order and its
    # reverse, tell it without error
    rng = np.random.default_rng(n)
    own = torch.from_numpy(rng.normal(size=(3, n)))
    pairs = torch.from_numpy(np.triu(rng.normal(size=(3, n, n)), 1))
    pairs[0] = 0  # an additive game

    def play(sample, present):
        x = present.double()
        alone = (own[sample] * x).sum(1)
        return (2 + alone + torch.einsum("rn,rnm,rm->r", x, pairs[sample], x)).unsqueeze(1)

    rim = anchor_coalitions(n)
    known = torch.stack([play(torch.full((len(rim),), i), rim) for i in range(3)])
    found = sampled_values(
        estimator,
        play,
        known,
        [torch.Generator().manual_seed(i) for i in range(3)],
        n_modalities=n,
        budget=least_budget(estimator, n),
    )
    expected = own + (pairs.sum(1) + pairs.sum(2)) / 2
    torch.testing.assert_close(found.contributions[..., 0], expected, atol=1e-10, rtol=0)
    assert found.stderr.abs().max() < 1e-8


@pytest.mark.parametrize("n", [4, 9])
def test_permutations_are_right_on_average_over_draws(n):
    values = normal_games(1, n)
    phi = estimated("permutation", values.expand(2000, -1)).contributions
    error = phi.mean(0) - shapley_values(values)[0]
    assert (error.abs() < 4 * phi.std(0) / 2000**0.5).all()


@pytest.mark.parametrize("n", [4, 9])
def test_the_bias_of_the_kernel_is_small_beside_its_error_and_goes_with_more_coalitions(n):
    values = normal_games(1, n)
    exact = shapley_values(values)[0]
    few = estimated("kernel", values.expand(4000, -1)).contributions
    more = estimated("kernel", values.expand(4000, -1), 400).contributions
    bias = [(phi.mean(0) - exact).square().mean().sqrt() for phi in (few, more)]
    assert bias[0] < few.std(0).mean() / 5
    assert bias[1] < bias[0] / 2


# --- plain loops


def test_permutations_agree_with_a_plain_loop_over_orders_and_their_reverses():
    n, pairs = 6, 20
    values = normal_games(1, n)
    uniform = uniform_numbers("permutation", n, pairs)
    (phi, stderr), _ = with_draws("permutation", values, uniform)
    of_pairs = []
    for keys in uniform[0].tolist():
        order = sorted(range(n), key=keys.__getitem__)
        gains = [0.0] * n
        for joining in (order, order[::-1]):
            present = 0
            for m in joining:
                gains[m] += float(values[0, present | 1 << m] - values[0, present]) / 2
                present |= 1 << m
        of_pairs.append(gains)
    np.testing.assert_allclose(phi, np.mean(of_pairs, axis=0), atol=1e-13)
    np.testing.assert_allclose(stderr, np.std(of_pairs, axis=0, ddof=1) / pairs**0.5, atol=1e-13)


def least_squares(coalitions, worth, weights, total):
    """argmin Σ w (worth − Σ_{i ∈ S} β_i)² with Σ β = total, by leaving the last β out."""
    apart = coalitions[:, :-1] - coalitions[:, -1:]
    root = np.sqrt(weights)
    beta = np.linalg.lstsq(
        apart * root[:, None], (worth - coalitions[:, -1] * total) * root, rcond=None
    )[0]
    return np.append(beta, total - beta.sum())


@pytest.mark.parametrize(("n", "pairs"), [(4, 8), (6, 12), (6, 40), (9, 30)])
def test_the_kernel_agrees_with_weighted_least_squares_on_the_same_coalitions(n, pairs):
    values = normal_games(1, n, seed=n)
    uniform = uniform_numbers("kernel", n, pairs)
    (phi, stderr), table = with_draws("kernel", values, uniform)
    drawn = table.rows_of(0).double().numpy()
    assert drawn.shape == (2 * pairs, n)
    np.testing.assert_array_equal(drawn[0::2], 1 - drawn[1::2])
    rim = anchor_coalitions(n)[1:-1].double().numpy()
    # Shapley's kernel sums to so much over the sizes that are drawn
    weight = sum((n - 1) / (k * (n - k)) for k in range(2, n - 1))
    rows = np.concatenate([rim, drawn])
    weights = np.array([1 / n] * len(rim) + [weight / (2 * pairs)] * len(drawn))
    worth = (values[0, rows @ 2 ** np.arange(n)] - values[0, 0]).numpy()
    total = float(values[0, -1] - values[0, 0])
    expected = least_squares(rows, worth, weights, total)
    np.testing.assert_allclose(phi, expected, atol=1e-12)
    # standard errors: how far each pair moves the fit, worked out again without it
    moved = []
    for k in range(pairs):
        kept = np.ones(len(rows), dtype=bool)
        kept[len(rim) + 2 * k : len(rim) + 2 * k + 2] = False
        without = least_squares(rows[kept], worth[kept], weights[kept], total)
        moved.append(expected - without)
    spread = np.var(moved, axis=0) * pairs**2 / (pairs - 1)
    np.testing.assert_allclose(stderr, np.sqrt(spread), atol=1e-12)


def test_sizes_and_members_are_drawn_as_the_kernel_weighs_them():
    n, pairs = 7, 20_000
    _, table = with_draws("kernel", normal_games(1, n), uniform_numbers("kernel", n, pairs))
    drawn = table.rows_of(0)[0::2]
    sizes = torch.arange(2, n - 1)
    weights = 1 / (sizes * (n - sizes)).double()
    share = drawn.sum(1).bincount(minlength=n + 1).double() / pairs
    assert share[[0, 1, n - 1, n]].sum() == 0
    torch.testing.assert_close(share[2 : n - 1], weights / weights.sum(), atol=0.015, rtol=0)
    torch.testing.assert_close(
        drawn.double().mean(0), drawn.double().mean().expand(n), atol=0.015, rtol=0
    )


def test_the_kernel_errs_no_more_than_shapiqs_with_as_many_coalitions():
    from shapiq import KernelSHAP  # seconds to import: only where it is compared with

    n, budget = 8, 128
    values = smooth_games(30, n)
    exact = shapley_values(values)
    ours = (estimated("kernel", values, budget).contributions - exact).square().mean()
    errors = []
    for k, game in enumerate(values.numpy()):

        def worth(coalitions, game=game):
            return game[np.asarray(coalitions).astype(int) @ (1 << np.arange(n))]

        peer = KernelSHAP(n=n, pairing_trick=True, random_state=k).approximate(budget, worth)
        errors.append(np.square([peer[(m,)] for m in range(n)] - exact[k].numpy()).mean())
    assert ours < 1.5 * np.mean(errors)


# --- standard errors and intervals


def quantile(found: Estimate, level: float = 0.95) -> float:
    return float(student.ppf((1 + level) / 2, int(found.draws[0]) - 1))


def coverage(estimator, values, budget) -> float:
    """How often the 95 % interval has the exact contribution in it."""
    found = estimated(estimator, values, budget)
    error = (found.contributions - shapley_values(values)).abs()
    return float((error <= quantile(found) * found.stderr + 1e-12).double().mean())


@BOTH
@pytest.mark.parametrize("make", [normal_games, smooth_games], ids=["normal", "smooth"])
@pytest.mark.parametrize(
    ("n", "budget"), [(4, 64), (6, None), (6, 256), (8, None), (8, 512), (10, None), (10, 512)]
)
def test_intervals_of_2000_games_cover_the_exact_value_as_often_as_they_say(
    estimator, make, n, budget
):
    assert 0.93 <= coverage(estimator, make(2000, n), budget) <= 0.97


@pytest.mark.parametrize(
    ("estimator", "n", "budget"),
    [("kernel", 6, 128), ("kernel", 8, 128), ("kernel", 10, 512), ("permutation", 6, 512)],
)
def test_intervals_of_the_papers_value_cover_as_often_as_they_say(estimator, n, budget):
    assert 0.93 <= coverage(estimator, paper_games(2000, n), budget) <= 0.97


@BOTH
@pytest.mark.parametrize(("n", "budget"), [(6, 256), (9, 512)])
def test_standard_errors_are_the_spread_over_draws(estimator, n, budget):
    found = estimated(estimator, normal_games(1, n).expand(2000, -1), budget)
    spread = found.contributions.std(0)
    claimed = found.stderr.square().mean(0).sqrt()
    torch.testing.assert_close(claimed / spread, torch.ones_like(spread), atol=0.08, rtol=0)


# --- what is drawn for a sample is its own


@BOTH
@pytest.mark.parametrize("tolerance", [None, 0.3])
def test_neither_the_order_of_the_samples_nor_the_others_matter(estimator, tolerance):
    n, seeds = 7, list(range(6))
    values = normal_games(6, n)
    budget = 2 * least_budget(estimator, n)
    together = Table(values)
    found = estimated(estimator, together, budget, seeds, tolerance)
    backwards = estimated(estimator, values.flip(0), budget, seeds[::-1], tolerance)
    torch.testing.assert_close(backwards.contributions.flip(0), found.contributions)
    torch.testing.assert_close(backwards.stderr.flip(0), found.stderr)
    for i in seeds:
        table = Table(values[i : i + 1])
        alone = estimated(estimator, table, budget, [i], tolerance)
        torch.testing.assert_close(alone.contributions[0], found.contributions[i])
        torch.testing.assert_close(alone.stderr[0], found.stderr[i])
        assert alone.draws[0] == found.draws[i]
        assert torch.equal(table.rows_of(0), together.rows_of(i))


@BOTH
def test_another_generator_draws_others_and_the_same_the_same(estimator):
    values = normal_games(1, 6).expand(3, -1)
    phi = estimated(estimator, values, seeds=[1, 2, 1]).contributions
    assert torch.equal(phi[0], phi[2])
    assert not torch.equal(phi[0], phi[1])


# --- budget, tolerance, memory


@BOTH
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 12])
@pytest.mark.parametrize("more", [0, 1, 37])
def test_a_sample_is_never_asked_for_more_coalitions_than_the_budget(estimator, n, more):
    budget = least_budget(estimator, n) + more
    table = Table(normal_games(3, n))
    found = estimated(estimator, table, budget)
    known = table.known.shape[1]
    for i in range(3):
        asked = len(table.rows_of(i)) if table.asked else 0
        assert known + asked <= budget
        each = ESTIMATORS[estimator].needs(n).coalitions
        if n > 3:
            assert known + asked > budget - each  # and it makes use of it
            assert asked == each * found.draws[i]


@pytest.mark.parametrize(
    ("estimator", "n", "fewest"),
    [
        ("kernel", 1, 2),
        ("kernel", 3, 8),
        ("permutation", 2, 4),
        ("kernel", 4, 10 + 8 * 2),
        ("kernel", 12, 26 + 24 * 2),
        ("permutation", 4, 10 + 16 * 2),
        ("permutation", 12, 26 + 16 * 18),
    ],
)
def test_a_budget_that_is_too_small_is_refused_with_the_least_that_will_do(estimator, n, fewest):
    assert least_budget(estimator, n) == fewest
    check_budget(estimator, fewest, n)
    message = (
        f"^a budget of {fewest - 1} coalitions a sample is too small for estimator '{estimator}' "
        f"and {n} modalities: it takes {fewest} at least"
        + (f"; without one all {2**n:,} coalitions are valued$" if n <= 12 else "$")
    )
    with pytest.raises(UsageError, match=message):
        check_budget(estimator, fewest - 1, n)
    with pytest.raises(UsageError, match=message):
        estimated(estimator, normal_games(1, n), fewest - 1)


@pytest.mark.parametrize("n", [2, 6])
def test_an_unknown_estimator_is_refused_with_the_legal_names(n):
    message = "^unknown estimator 'guess': choose one of permutation, kernel$"
    with pytest.raises(UsageError, match=message):
        check_budget("guess", 512, n)
    with pytest.raises(UsageError, match=message):
        estimated("guess", normal_games(1, n), 512)


def test_the_usual_budget_is_512_coalitions_or_the_least_that_will_do():
    assert default_budget("kernel", 12) == default_budget("permutation", 12) == 512
    assert default_budget("permutation", 30) == least_budget("permutation", 30) > 512


@BOTH
def test_a_tolerance_ends_a_sample_when_none_of_its_errors_is_above_it(estimator):
    n, budget, tolerance = 6, 2000, 0.1
    # the larger the values, the more must be drawn
    table = Table(normal_games(1, n) * torch.tensor([[1e-6], [0.2], [0.5], [1.0], [50.0]]))
    found = estimated(estimator, table, budget, tolerance=tolerance)
    known, each = table.known.shape[1], ESTIMATORS[estimator].needs(n).coalitions
    most = (budget - known) // each
    early = found.draws < most
    assert early.tolist() == [True, True, True, True, False]
    assert (found.stderr[early] <= tolerance).all()
    assert (found.stderr[4] > tolerance).any()
    assert found.draws[4] == most
    assert all(fewer <= more for fewer, more in pairwise(found.draws.tolist()))
    assert found.draws[0] == max(16, ESTIMATORS[estimator].needs(n).pairs)
    for i in range(5):
        assert len(table.rows_of(i)) == each * found.draws[i]
        # and what was drawn until then is what a budget of just so many would have drawn
        alone = estimated(
            estimator, table.values[i : i + 1], known + each * int(found.draws[i]), [i]
        )
        torch.testing.assert_close(alone.contributions[0], found.contributions[i])
        torch.testing.assert_close(alone.stderr[0], found.stderr[i])


@BOTH
def test_a_tolerance_looks_at_every_game_of_a_sample(estimator):
    n, bits = 5, 2 ** torch.arange(5)
    worth = torch.stack([torch.zeros(32), normal_games(1, n)[0] * 5], dim=1).double()
    found = sampled_values(
        estimator,
        lambda sample, present: worth[(present * bits).sum(1)],
        worth[(anchor_coalitions(n) * bits).sum(1)].unsqueeze(0),
        [torch.Generator().manual_seed(0)],
        n_modalities=n,
        budget=8000,
        tolerance=0.2,
    )
    assert found.draws[0] > 16
    assert found.stderr[0, :, 0].max() == 0
    assert 0 < found.stderr[0, :, 1].max() <= 0.2


@BOTH
def test_memory_is_bounded_however_large_the_budget(estimator):
    n, budget = 5, 30_000
    table = Table(normal_games(1, n))
    found = estimated(estimator, table, budget)
    assert max(len(present) for _, present in table.asked) <= 4096
    assert len(table.asked) > 5
    assert (found.contributions - shapley_values(table.values)).abs().max() < 0.1


@BOTH
def test_drawing_in_rounds_gives_what_drawing_at_once_gives(estimator, monkeypatch):
    values, budget = normal_games(3, 6), 800
    at_once = estimated(estimator, values, budget)
    monkeypatch.setattr(estimators, "_ROUND_ROWS", 200)
    monkeypatch.setattr(estimators, "_AT_A_TIME", 1)
    table = Table(values)
    in_rounds = estimated(estimator, table, budget)
    assert len(table.asked) > 3
    assert torch.equal(in_rounds.draws, at_once.draws)
    torch.testing.assert_close(in_rounds.contributions, at_once.contributions)
    torch.testing.assert_close(in_rounds.stderr, at_once.stderr)


@BOTH
@pytest.mark.parametrize("tolerance", [None, 0.1])
def test_no_samples_have_no_contributions(estimator, tolerance):
    found = estimated(estimator, torch.zeros(0, 32), tolerance=tolerance)
    assert found.contributions.shape == found.stderr.shape == (0, 5)
    assert found.draws.shape == (0,)
