"""What the recorder keeps of a forward pass."""
import pytest
import torch
from torch import nn

from mmbignas.distill import OutputRecorder
from mmbignas.errors import ConfigError


class Net(nn.Module):
    """A shared convolution, an in-place activation after it, and a part that puts out several tensors."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True))
        self.head = Head()

    def forward(self, x):
        return self.head([self.body(x), self.body(x[..., ::2])])


class Head(nn.Module):
    def forward(self, feats):
        return dict(scores=[feat.exp() for feat in feats], extra=(feats[0].sum(), None, 'name'))


def expected_convs(model, x):
    conv = model.body[0]
    return [conv(own).detach() for own in (x, x[..., ::2])]


def test_outputs_in_the_order_of_the_calls():
    model, x = Net(), torch.randn(2, 3, 4, 6)
    recorder = OutputRecorder(model, {'body.0': 'key', 'head': 'key'})
    model(x)
    assert recorder.stop() == {}
    for _ in range(2):
        recorder.start()
        output = model(x)
        recorded = recorder.stop()
        assert list(recorded) == ['body.0', 'head']
        for ours, theirs in zip(recorded['body.0'], expected_convs(model, x), strict=True):
            assert torch.equal(ours, theirs)
        for ours, theirs in zip(recorded['head'], [*output['scores'], output['extra'][0]], strict=True):
            assert torch.equal(ours, theirs)
        x = torch.randn(2, 3, 4, 6)
    model(x)
    assert recorder.stop() == {}


def test_start_forgets():
    model, x = Net(), torch.randn(2, 3, 4, 6)
    recorder = OutputRecorder(model, {'body.0': 'key'})
    recorder.start()
    model(x * 0)
    recorder.start()
    model(x)
    recorded = recorder.stop()['body.0']
    assert len(recorded) == 2
    assert torch.equal(recorded[0], expected_convs(model, x)[0])


def test_gradients_flow_through_what_was_recorded():
    model, x = Net(), torch.randn(2, 3, 4, 6)
    recorder = OutputRecorder(model, {'body.0': 'key'})
    recorder.start()
    model(x)
    recorder.stop()['body.0'][0].sum().backward()
    gradient = model.body[0].weight.grad
    torch.testing.assert_close(gradient, x.sum((0, 2, 3)).expand(4, 3)[..., None, None])


def test_wrapped_model():
    recorder = OutputRecorder(nn.DataParallel(Net()), {'body.0': 'key'})
    recorder.remove()


def test_remove():
    model = Net()
    recorder = OutputRecorder(model, {'body.0': 'key', 'head': 'key'})
    assert all(len(module._forward_hooks) == 1 for module in (model.body[0], model.head))
    recorder.remove()
    assert all(not module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(('name', 'parts'), [
    ('body.2', ["'body.2'", 'body has: 0, 1']),
    ('body.0.weights', ["'body.0.weights'", 'body.0 has: no children']),
    ('neck.conv', ["'neck.conv'", 'the model has: body, head']),
])
def test_unknown_names(name, parts):
    model = Net()
    with pytest.raises(ConfigError) as error:
        OutputRecorder(model, {'body.0': 'jobs.b.mimic_name', name: 'jobs.a.mimic_name'})
    assert str(error.value).startswith('jobs.a.mimic_name: ')
    assert '\n' not in str(error.value)
    for part in parts:
        assert part in str(error.value)
    assert all(not module._forward_hooks for module in model.modules())
