import numpy as np
import pytest
import torch

from models.radiance.sampling import importance, render_coarse_fine, stratified

NEAR, FAR = 0.3, 0.9


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_even_distances():
    distances = stratified(torch.tensor([0.3, 1.0]), torch.tensor([0.9, 2.0]), 4, None)
    assert distances.tolist() == [pytest.approx([0.3, 0.5, 0.7, 0.9]), pytest.approx([1, 4 / 3, 5 / 3, 2])]


def test_drawn_distances_stay_in_their_parts():
    near, far = torch.full((500,), NEAR), torch.full((500,), FAR)
    distances = stratified(near, far, 8, seeded())
    even = stratified(near, far, 8, None)[0]
    bounds = torch.cat((even[:1], (even[1:] + even[:-1]) / 2, even[-1:]))
    assert ((distances >= bounds[:-1]) & (distances <= bounds[1:])).all()
    assert (distances.diff(dim=1) >= 0).all()
    assert torch.equal(distances, stratified(near, far, 8, seeded()))
    assert (distances - even).std() > 0.01


def test_importance_inverts_the_distribution():
    edges = torch.tensor([[0.0, 1.0, 1.5, 4.0]], dtype=torch.float64)
    shares = torch.tensor([[2.0, 1.0, 5.0]], dtype=torch.float64)
    distances = importance(edges, shares, 33, None)[0].numpy()
    cumulated = np.cumsum([0, 2 + 1e-5, 1 + 1e-5, 5 + 1e-5])
    quantiles = np.interp(distances, edges[0].numpy(), cumulated / cumulated[-1])
    assert np.allclose(quantiles, np.linspace(0, 1, 33), atol=1e-9)


def test_importance_draws_by_the_weights():
    edges = torch.linspace(0, 1, 6)[None]
    shares = torch.tensor([[0.0, 3.0, 0.0, 1.0, 0.0]])
    distances = importance(edges, shares, 4000, seeded())[0]
    counts = torch.histc(distances, 5, 0, 1) / 4000
    assert counts.tolist() == pytest.approx([0, 0.75, 0, 0.25, 0], abs=0.03)


def test_importance_without_weights_is_even_and_within_the_edges():
    edges = torch.tensor([[0.2, 0.4, 0.6]])
    distances = importance(edges, torch.zeros(1, 2), 5, None)
    assert distances[0].tolist() == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.6])
    drawn = importance(edges.expand(100, 3), torch.rand(100, 2, generator=seeded()), 64, seeded())
    assert ((drawn >= 0.2) & (drawn <= 0.6)).all()


def test_importance_passes_no_gradient():
    shares = torch.rand(2, 3, requires_grad=True)
    assert not importance(torch.rand(2, 4).cumsum(1), shares, 5, seeded()).requires_grad


def rays_at(count=6):
    return torch.zeros(count, 3), torch.tensor([[0.0, 0.0, 1.0]]).expand(count, 3)


def fog(sigma, color=(0.2, 0.5, 0.9)):
    return lambda positions, directions: (
        positions.new_tensor(color).expand(len(positions), 3),
        torch.full((len(positions),), float(sigma)),
    )


@pytest.mark.parametrize("generator", [None, seeded()])
def test_nothing_shows_the_background(generator):
    background = torch.rand(6, 3)
    rendered = render_coarse_fine(fog(0), fog(0), *rays_at(), NEAR, FAR, 8, 16, background, generator)
    assert torch.allclose(rendered.color, background, atol=2e-6)
    assert torch.allclose(rendered.coarse_color, background, atol=2e-6)
    assert rendered.opacity.max() < 2e-6


def test_fog_is_as_thick_as_it_is_deep():
    background = torch.rand(6, 3)
    rendered = render_coarse_fine(fog(5), fog(2), *rays_at(), NEAR, FAR, 8, 16, background, None)
    color = torch.tensor([0.2, 0.5, 0.9])
    for sigma, seen in ((5, rendered.coarse_color), (2, rendered.color)):
        left = np.exp(-sigma * 0.6)
        assert torch.allclose(seen, (1 - left) * color + left * background, atol=1e-5)
    assert torch.allclose(rendered.opacity, torch.full((6,), 1 - float(np.exp(-1.2))), atol=1e-5)


def test_opaque_fog_shows_its_colour():
    rendered = render_coarse_fine(fog(1e6), fog(1e6), *rays_at(), NEAR, FAR, 8, 16, torch.rand(6, 3), None)
    assert torch.equal(rendered.color, torch.tensor([[0.2, 0.5, 0.9]]).expand(6, 3)) and (rendered.opacity == 1).all()


def test_near_and_far_of_each_ray():
    near, far = torch.tensor([0.1, 0.2]), torch.tensor([0.6, 1.2])
    rendered = render_coarse_fine(fog(2), fog(2), *rays_at(2), near, far, 8, 16, torch.zeros(2, 3), None)
    assert torch.allclose(rendered.opacity, 1 - torch.exp(-2 * (far - near)), atol=1e-5)


def blob(positions, directions):
    """A ball of soft fog whose colour depends on place and direction."""
    sigma = 60 * torch.exp(-((positions - positions.new_tensor([0.0, 0.0, 0.55])) ** 2).sum(-1) / 0.005)
    return (positions * 3 + directions).sigmoid(), sigma


def restated(field, origins, directions, distances, background):
    """The release's compositing: an endless last stretch in the colour of the background."""
    stretches = torch.cat((distances.diff(dim=1), torch.full((len(distances), 1), 1e10, dtype=distances.dtype)), 1)
    places = origins[:, None] + distances[..., None] * directions[:, None]
    colors, sigmas = field(places.reshape(-1, 3), directions[:, None].expand_as(places).reshape(-1, 3))
    colors = torch.cat((colors.view(places.shape)[:, :-1], background[:, None]), 1)
    alphas = 1 - torch.exp(-(sigmas.view(stretches.shape) + 1e-6) * stretches)
    light = torch.cumprod(torch.cat((torch.ones_like(alphas[:, :1]), 1 - alphas[:, :-1]), 1), 1)
    return ((light * alphas)[..., None] * colors).sum(1), light * alphas


def test_against_the_release_s_way_of_compositing():
    origins = 0.05 * torch.randn(20, 3, dtype=torch.float64, generator=seeded())
    directions = torch.nn.functional.normalize(
        torch.tensor([0.0, 0.0, 1.0]) + 0.1 * torch.randn(20, 3, dtype=torch.float64, generator=seeded(1)), dim=-1
    )
    background = torch.rand(20, 3, dtype=torch.float64)
    rendered = render_coarse_fine(blob, blob, origins, directions, NEAR, FAR, 16, 32, background, None)

    distances = torch.linspace(NEAR, FAR, 16, dtype=torch.float64).expand(20, 16)
    expected, shares = restated(blob, origins, directions, distances, background)
    assert torch.allclose(rendered.coarse_color, expected)
    middles = (distances[:, 1:] + distances[:, :-1]) / 2
    more = importance(middles, shares[:, 1:-1], 32, None)
    distances = torch.cat((distances, more), 1).sort(1).values
    expected, shares = restated(blob, origins, directions, distances, background)
    assert torch.allclose(rendered.color, expected)
    assert torch.allclose(rendered.opacity, 1 - shares[:, -1])
    assert 0.1 < rendered.opacity.mean() < 0.9


def test_the_fine_field_sees_more_where_there_is_more():
    seen = []

    def watched(positions, directions):
        seen.append(positions[:, 2])
        return blob(positions, directions)

    render_coarse_fine(watched, watched, *rays_at(1), NEAR, FAR, 16, 64, torch.zeros(1, 3), None)
    assert [len(places) for places in seen] == [15, 79]
    near_the_ball = [((places - 0.55).abs() < 0.15).float().mean().item() for places in seen]
    assert near_the_ball[1] > 0.8 > near_the_ball[0]


def test_each_colour_trains_its_field():
    sigmas = [torch.tensor(2.0, requires_grad=True) for _ in range(2)]
    coarse, fine = (lambda p, d, s=s: (p.sigmoid(), s.expand(len(p))) for s in sigmas)
    rendered = render_coarse_fine(coarse, fine, *rays_at(), NEAR, FAR, 8, 8, torch.rand(6, 3), seeded())
    rendered.color.sum().backward(retain_graph=True)
    assert sigmas[0].grad is None and sigmas[1].grad != 0
    rendered.coarse_color.sum().backward()
    assert sigmas[0].grad != 0
