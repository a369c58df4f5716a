"""Images of other sizes: what the model is given, against MMDetection's own Resize, and where its boxes lie."""
import copy
import random

import numpy as np
import pytest
import torch
from mmdet.datasets.transforms import Resize
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.model import MMDistributedDataParallel
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from shapely import geometry
from torch import nn
from torch.nn import functional

from mmbignas.data.resizing import INTERPOLATIONS, at_resolution
from mmbignas.errors import ConfigError
from mmbignas.registry import MODELS
from mmbignas.supernet import calibrate_bn
from tests.small_models import batch, build, retinanet, samples, scramble


class Model(nn.Module):
    """Nothing but a data preprocessor."""

    def __init__(self, **kwargs):
        super().__init__()
        self.data_preprocessor = MODELS.build(dict(type='mmdet.DetDataPreprocessor', **kwargs))


def image_batch(shapes, scale=1., seed=0, **data):
    """Noise images of these shapes, the originals of which were larger by ``scale``."""
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randint(0, 255, (3, *shape), generator=generator, dtype=torch.uint8) for shape in shapes]
    own = []
    for index, (height, width) in enumerate(shapes):
        sample = DetDataSample(metainfo=dict(
            img_id=index, img_shape=(height, width), scale_factor=(1 / scale, 1 / scale),
            ori_shape=(int(height * scale), int(width * scale))))
        sample.set_data(data)
        own.append(sample)
    return dict(inputs=inputs, data_samples=own)


def run(model, data, image_size, training=False, **kwargs):
    with at_resolution(model, image_size, **kwargs):
        return model.data_preprocessor(data, training)


def mmdet_resize(shape, image_size):
    """What MMDetection's Resize makes of an image of this shape: its shape and scale factor."""
    results = Resize(scale=tuple(image_size[::-1]), keep_ratio=True)(dict(img=np.zeros((*shape, 3), np.uint8)))
    return results['img_shape'], results['scale_factor']


def test_shapes_are_those_of_mmdetections_resize():
    """For images that need no padding, and for others the padded image is what is resized."""
    rng = random.Random(0)
    for _trial in range(300):
        divisor = rng.choice([1, 8, 32])
        model = Model(pad_size_divisor=divisor)
        image_size = [divisor * rng.randint(1, 256 // divisor) for _ in range(2)]
        shapes = [(rng.randint(1, 200), rng.randint(1, 200)) for _ in range(rng.randint(1, 3))]
        before = model.data_preprocessor(image_batch(shapes, 1.5))
        data = run(model, image_batch(shapes, 1.5), image_size)
        inputs, own = data['inputs'], data['data_samples']
        assert all(side % divisor == 0 for side in inputs.shape[2:])
        pads = []
        for (height, width), sample in zip(shapes, own):
            padded = [-(-side // divisor) * divisor for side in (height, width)]
            expected, factor = mmdet_resize(padded, image_size)
            if padded == [height, width]:
                assert sample.img_shape == expected
                assert sample.scale_factor == pytest.approx([own / 1.5 for own in factor], rel=1e-12)
            # Rounded once, where Resize of the padded image would round the padded one.
            ratio = min(max(image_size) / max(padded), min(image_size) / min(padded))
            assert all(abs(side - ratio * before) <= .5 or side == 1
                       for side, before in zip(sample.img_shape, (height, width)))
            assert all(0 < side <= most for side, most in zip(sorted(sample.img_shape), sorted(image_size)))
            assert sample.scale_factor == pytest.approx(
                (sample.img_shape[1] / width / 1.5, sample.img_shape[0] / height / 1.5), rel=1e-12)
            assert sample.batch_input_shape == tuple(inputs.shape[2:])
            assert sample.pad_shape == tuple(-(-side // divisor) * divisor for side in sample.img_shape)
            pads.append(sample.pad_shape)
        if any(one.img_shape != other.img_shape for one, other in zip(own, before['data_samples'])):
            assert tuple(inputs.shape[2:]) == tuple(map(max, zip(*pads)))


@pytest.mark.parametrize('image_size', [None, [64, 96], (96, 64)])
def test_nothing_happens_to_images_that_fit_already(image_size):
    model = Model(pad_size_divisor=32, mean=[1, 2, 3], std=[4, 5, 6])
    shapes = [(60, 90), (96, 40), (64, 96)]  # in their padded shape one side is that of the size, none is longer
    expected = model.data_preprocessor(image_batch(shapes))
    data = run(model, image_batch(shapes), image_size)
    assert torch.equal(data['inputs'], expected['inputs'])
    for ours, theirs in zip(data['data_samples'], expected['data_samples']):
        assert ours.metainfo == theirs.metainfo


def test_pixels():
    """Each image is interpolated alone, without its padding, and independently of what is beside it."""
    model = Model(pad_size_divisor=16, mean=[10, 20, 30], std=[4, 5, 6], pad_value=7)
    shapes = [(60, 90), (96, 40), (64, 96)]
    data = image_batch(shapes)
    for interpolation in INTERPOLATIONS:
        antialias = dict(antialias=True) if interpolation in ('bilinear', 'bicubic') else {}
        resized = run(model, data, (32, 48), interpolation=interpolation)
        for index, (raw, (height, width)) in enumerate(zip(data['inputs'], [(30, 45), (48, 20), (32, 48)])):
            image = (raw.float() - model.data_preprocessor.mean) / model.data_preprocessor.std
            image = functional.interpolate(image[None], (height, width), mode=interpolation, **antialias)[0]
            assert torch.equal(resized['inputs'][index, :, :height, :width], image)
            for padding in (resized['inputs'][index, :, height:], resized['inputs'][index, :, :, width:]):
                assert (padding == 7).all()
            alone = run(model, {name: values[index:index + 1] for name, values in data.items()}, (32, 48),
                        interpolation=interpolation)
            assert torch.equal(alone['inputs'][0, :, :height, :width], image)
            assert alone['data_samples'][0].img_shape == resized['data_samples'][index].img_shape


def test_an_image_that_fits_stays_beside_one_that_does_not():
    model, shapes = Model(pad_size_divisor=32), [(64, 96), (96, 96)]
    data = image_batch(shapes)
    resized = run(model, data, (64, 96))
    assert resized['inputs'].shape == (2, 3, 64, 96)
    assert torch.equal(resized['inputs'][0], data['inputs'][0].float())
    assert [sample.img_shape for sample in resized['data_samples']] == [(64, 96), (64, 64)]


@pytest.mark.parametrize('kind', [HorizontalBoxes, torch.tensor])
@pytest.mark.parametrize('pad_mask', [True, False])
def test_ground_truth_follows_in_training_alone(kind, pad_mask):
    """As that of MMDetection's Resize."""
    model = Model(pad_size_divisor=16, pad_mask=pad_mask, boxtype2tensor=False)
    boxes, mask = [[3., 5., 40., 60.], [0., 0., 90., 64.]], np.zeros((2, 64, 90), np.uint8)
    mask[0, 5:60, 3:40] = mask[1] = 1
    polygons = [[np.array([3., 5, 40, 5, 40, 60])], [np.array([0., 0, 90, 0, 90, 64, 0, 64])]]
    for masks in (BitmapMasks(mask, 64, 90), PolygonMasks(polygons, 64, 90)):
        instances = InstanceData(bboxes=kind(boxes), masks=masks, labels=torch.tensor([0, 1]))
        data, untouched = image_batch([(64, 90)], gt_instances=instances), copy.deepcopy(instances)
        results = Resize(scale=(45, 32), keep_ratio=True)(dict(
            img=np.zeros((64, 90, 3), np.uint8), gt_bboxes=HorizontalBoxes(boxes), gt_masks=masks))
        [sample] = run(model, data, (32, 48), training=True)['data_samples']
        own = sample.gt_instances
        assert torch.allclose(plain(own.bboxes), plain(results['gt_bboxes']))
        assert torch.equal(own.labels, instances.labels)
        expected = results['gt_masks'].pad((32, 48)) if pad_mask else results['gt_masks']
        assert (own.masks.height, own.masks.width) == (expected.height, expected.width)
        if isinstance(masks, BitmapMasks):
            assert np.array_equal(own.masks.masks, expected.masks)
        else:
            assert [geometry.Polygon(part.reshape(-1, 2)).symmetric_difference(
                geometry.Polygon(want.reshape(-1, 2))).area for [part], [want] in zip(
                    own.masks.masks, expected.masks)] == pytest.approx([0, 0])
        # In evaluation it belongs to the original image; and what the data set may keep is left alone.
        [evaluated] = run(model, data, (32, 48))['data_samples']
        for left in (evaluated.gt_instances, instances):
            assert torch.equal(plain(left.bboxes), plain(untouched.bboxes))
            assert (left.masks.height, left.masks.width) == (64, 90)
        assert data['data_samples'][0].img_shape == (64, 90)


def plain(boxes):
    return boxes.tensor if isinstance(boxes, HorizontalBoxes) else boxes


def test_maps_are_refused_in_training():
    model = Model(pad_size_divisor=32)
    data = image_batch([(64, 96)], gt_sem_seg=PixelData(sem_seg=torch.zeros(1, 64, 96)))
    run(model, data, (32, 64))
    run(model, data, (64, 96), training=True)
    with pytest.raises(ConfigError, match='gt_sem_seg'):
        run(model, data, (32, 64), training=True)


def test_images_without_shapes():
    """Batches of a classifier, whose samples say what they were cropped from, and others."""
    images = torch.rand(2, 3, 64, 64)
    expected = functional.interpolate(images, (48, 48), mode='bicubic', antialias=True)
    cls_sample = BaseDataElement(metainfo=dict(img_shape=(64, 64)))
    for data_samples in (None, [cls_sample] * 2):
        model = nn.Module()
        model.data_preprocessor = Returning(dict(inputs=images, data_samples=data_samples))
        data = run(model, None, (48, 48))
        assert torch.allclose(data['inputs'], expected) and data['data_samples'] is data_samples
    for kind in (list, tuple):
        model.data_preprocessor = Returning(kind([images]))
        data = run(model, None, (48, 48))
        assert type(data) is kind and torch.allclose(data[0], expected)
    assert type(run(model, None, (64, 64))[0]) is torch.Tensor
    model.data_preprocessor = Returning(dict(inputs=images))
    assert run(model, None, (48, 48)).keys() == {'inputs'}
    model.data_preprocessor = Returning(dict(inputs=[images]))
    with pytest.raises(ConfigError, match='no tensor of images'):
        run(model, None, (48, 48))
    model.data_preprocessor = Returning(dict(inputs=images))
    with pytest.raises(ConfigError, match=r'must be of the ratio .*\[64, 64\] become \[48, 48\].*, got \[48, 64\]'):
        run(model, None, (48, 64))
    with pytest.raises(ConfigError, match=r'must be at most \[64, 64\], .*, got \[96, 96\]'):
        run(model, None, (96, 96))


class Returning(nn.Module):
    """A data preprocessor that always returns the same."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, data, training=False):
        return self.value


@pytest.fixture(scope='module')
def detector():
    torch.manual_seed(0)
    config = retinanet()
    config.test_cfg.score_thr = 0.
    return scramble(build(config)).eval()


def predicted(model, data, image_size=None):
    with torch.no_grad(), at_resolution(model, image_size):
        return model.val_step(copy.deepcopy(data))


def test_a_detector_predicts_the_same_where_nothing_is_scaled(detector):
    data = batch((64, 96))
    for ours, theirs in zip(predicted(detector, data, (64, 96)), predicted(detector, data), strict=True):
        for name, value in theirs.pred_instances.items():
            assert torch.equal(ours.pred_instances[name], value)


@pytest.mark.parametrize('image_size', [(64, 64), (64, 96), (96, 128), (128, 192), (160, 320)])
def test_boxes_lie_in_the_original_image(detector, monkeypatch, image_size):
    """Of a head that finds the bright thing in the image that it is given."""
    rng, seen = random.Random(str(image_size)), []

    def predict(features, data_samples, rescale):
        bright = (seen.pop()[0, 0] > 127).nonzero()
        box = torch.cat([bright.min(0).values.flip(0), bright.max(0).values.flip(0) + 1]).float()
        found = InstanceData(bboxes=box[None], scores=torch.ones(1), labels=torch.zeros(1, dtype=torch.long))
        return [detector.bbox_head._bbox_post_process(
            found, detector.test_cfg, rescale, True, img_meta=data_samples[0].metainfo)]

    monkeypatch.setattr(detector.bbox_head, 'predict', predict)
    handle = detector.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    for _trial in range(20):
        data = image_batch([(120, 180)], scale=3.)
        left, top = rng.randint(0, 130), rng.randint(0, 70)
        right, bottom = left + rng.randint(12, 50), top + rng.randint(12, 50)
        data['inputs'][0].zero_()[:, top:bottom, left:right] = 255
        [sample] = predicted(detector, data, image_size)
        pixel = 3 * max(1, 128 / image_size[0], 192 / image_size[1])  # of the smaller of both images
        expected = 3. * torch.tensor([left, top, right, bottom])
        assert (sample.pred_instances.bboxes[0] - expected).abs().max() <= pixel
    handle.remove()


def bicubic(image, size):
    return functional.interpolate(image[None].float(), size, mode='bicubic', antialias=True)[0]


def test_losses(detector):
    """Those of the batch that a pipeline with Resize would give."""
    data = batch((64, 64))
    halves = [[[4., 6., 40., 50.], [20., 8., 62., 60.]], [[10., 10., 54., 44.]]]
    expected = dict(inputs=[bicubic(image, (32, 32)) for image in data['inputs']], data_samples=samples(
        [[[side / 2 for side in box] for box in own] for own in halves], size=(32, 32)))
    model, losses = copy.deepcopy(detector).train(), []
    for own, image_size in ((data, (32, 32)), (expected, None)):
        with at_resolution(model, image_size):
            losses.append(model(**model.data_preprocessor(own, True), mode='loss'))
    for name, value in losses[0].items():
        for ours, theirs in zip(*([own] if torch.is_tensor(own) else own for own in (value, losses[1][name]))):
            torch.testing.assert_close(ours, theirs)


def test_calibration_sees_the_size(detector):
    model, twin = copy.deepcopy(detector), copy.deepcopy(detector)
    batches = [batch((64, 64)) for _ in range(3)]
    with at_resolution(model, (32, 32)):
        calibrate_bn(model, batches)
    calibrate_bn(twin, [dict(inputs=[bicubic(image, (32, 32)) for image in own['inputs']]) for own in batches])
    for name, value in twin.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value)
    [name] = [name for name in twin.state_dict() if 'running_mean' in name][:1]
    assert not torch.allclose(model.state_dict()[name], detector.state_dict()[name])


def test_the_hook_goes_with_the_context():
    model, data = Model(pad_size_divisor=32), image_batch([(64, 64)])
    with pytest.raises(KeyError), at_resolution(model, (32, 32)):
        assert model.data_preprocessor(data)['inputs'].shape[-1] == 32
        raise KeyError
    assert model.data_preprocessor(data)['inputs'].shape[-1] == 64


def test_a_wrapped_model(monkeypatch):
    wrapper = MMDistributedDataParallel.__new__(MMDistributedDataParallel)
    nn.Module.__init__(wrapper)
    wrapper.module = Model(pad_size_divisor=32)
    with at_resolution(wrapper, (32, 32)):
        assert wrapper.module.data_preprocessor(image_batch([(64, 64)]))['inputs'].shape[-1] == 32


@pytest.mark.parametrize(('model', 'image_size', 'interpolation', 'parts'), [
    (Model(pad_size_divisor=32), (60, 64), 'bicubic', ['got (60, 64)', 'multiples of 32']),
    (Model(pad_size_divisor=32), 64, 'bicubic', ['got 64']),
    (Model(pad_size_divisor=32), (64, 64), 'lanczos', ["interpolation must be one of", *INTERPOLATIONS]),
    (nn.Module(), (64, 64), 'bicubic', ['image_size must be None', 'no data_preprocessor']),
])
def test_bad_arguments(model, image_size, interpolation, parts):
    with pytest.raises(ConfigError) as error, at_resolution(model, image_size, interpolation):
        pass
    for part in parts:
        assert part in str(error.value)
