"""Room on the accelerator: what goes there, what is kept, and what happens when there is none left."""

from __future__ import annotations

import os
import shutil
import sys
import weakref
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from jores.checkpoint import save_bundle
from jores.conditions import ConditionOnDemand, RetinexCondition
from jores.imaging import compositing
from jores.imaging.colours import ColourCast
from jores.imaging.resize import resize_map
from jores.options import ClipOptions, FinishOptions, SampleOptions
from jores.out_of_memory import is_out_of_memory
from jores.tiling.tiler import Tiler
from jores.video import LOOKAHEAD, enhance_frames
from tests import other_device as elsewhere
from tests.graphs import SEGMENTER, SHIPPED, conditioned, run
from tests.tiny import TINY, shaken


@pytest.fixture
def crossing(monkeypatch):
    """Sizes of the pictures that go to the other device, and how many of a whole frame's size are there at once."""
    seen, alive, compute = SimpleNamespace(pixels=[], held=0, frame=None), [], elsewhere.compute

    def watched(func, args, kwargs):
        made = compute(func, args, kwargs)
        if func is torch.ops.aten._to_copy.default and isinstance(made, elsewhere.Elsewhere) and made.ndim == 4:
            seen.pixels.append(made.shape[-2] * made.shape[-1])
            if tuple(made.shape[-2:]) == seen.frame:
                alive[:] = [ref for ref in alive if ref() is not None] + [weakref.ref(made)]
                seen.held = max(seen.held, len(alive))
        return made

    monkeypatch.setattr(elsewhere, "compute", watched)
    return seen


def dark(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 0.1


@pytest.fixture(scope="module")
def there():
    nets = shaken(TINY)
    for part in nets.parts().values():
        elsewhere.move(part)
    return nets


@pytest.mark.parametrize("size", [(700, 900), (1200, 400), (333, 1001)])
def test_the_segmenter_takes_a_reduced_picture_to_its_device(segmenter, crossing, size):
    low = dark(1, 3, *size)
    with torch.inference_mode():
        want = segmenter(low).probabilities
        weights = {name: value.clone() for name, value in segmenter.state_dict().items()}
        elsewhere.move(segmenter)
        try:
            with elsewhere.other_device():
                made = segmenter(low).probabilities
        finally:
            segmenter.load_state_dict(weights, assign=True)
    assert crossing.pixels and max(crossing.pixels) <= 512 * 544 < size[0] * size[1]
    assert made.device.type == "cpu" and (made - want).abs().max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "smooth"), [({"working_size": 48}, True), ({"tile": 64}, True), ({"tile": 64}, False)]
)
def test_frames_that_are_not_done_whole_stay_where_they_are(there, crossing, options, smooth):
    frames, clip = list(dark(2, 1, 3, 72, 100)), ClipOptions(smooth, elsewhere.DEVICE)
    with elsewhere.other_device():
        made = list(enhance_frames(frames, there, None, SampleOptions(steps=1, **options), clip=clip))
    assert all(frame.device.type == "cpu" for frame in made)
    assert max(crossing.pixels) < 72 * 100


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, LOOKAHEAD + 1, LOOKAHEAD + 4])
def test_the_frames_that_are_read_ahead_do_not_wait_on_the_device(there, crossing, count):
    crossing.frame = (24, 32)
    frames = [dark(1, 3, 24, 32) * (1 + 0.01 * i) for i in range(count)]
    clip = ClipOptions(device=elsewhere.DEVICE)
    with elsewhere.other_device():
        assert len(list(enhance_frames(frames, there, None, SampleOptions(steps=1), clip=clip))) == count
    assert crossing.held <= 5  # 7 more before


@pytest.mark.parametrize("size", [(150, 180), (300, 96), (256, 256)])
def test_conditions_of_windows_that_are_no_more_make_room(size):
    tiler, made = Tiler(96), []

    def make(window):
        made.append(window)
        h, w = window.size
        return RetinexCondition(
            torch.ones(1, 3, h, w), torch.ones(1, 1, h, w), (torch.ones(1, 1, 1, 1),), torch.ones(1)
        )

    condition = ConditionOnDemand(make, torch.device("cpu"), 10**9, layout=lambda: tiler.layout(size))
    for window in tiler.layout(size):
        condition.at(window)
    room = condition.cache
    tiler.tile = 64  # memory ran out
    for window in tiler.layout(size):
        condition.at(window)
    assert set(condition.kept) == set(tiler.layout(size))
    count = len(made)
    for window in tiler.layout(size):
        condition.at(window)
    assert len(made) == count and room < 10**9


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB", "MPS backend out of memory (MPS allocated: 17 GB)",
        "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes",
        "DefaultCPUAllocator: not enough memory: you tried to allocate 400 bytes.", "Invalid buffer size: 24.00 GB",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "std::bad_alloc",
        "unable to mmap 8 bytes from file <model.safetensors>: Cannot allocate memory (12)",
    ],
)  # fmt: skip
def test_memory_that_ran_out_is_known_everywhere_by_all_its_names(pack, message):
    advice = pack.load("nodes.host.patchers").memory_advice
    assert is_out_of_memory(RuntimeError(message))
    with pytest.raises(torch.cuda.OutOfMemoryError, match="Node: out of memory at 8x6 pixels"), advice("Node", "8x6"):
        raise RuntimeError(message)
    with pytest.raises(RuntimeError, match="^shape mismatch$"), advice("Node", "8x6"):
        raise RuntimeError("shape mismatch")


def test_memory_that_runs_out_in_the_segmenter_is_told_with_advice(pack):
    (segmenter,) = run(pack, "JoReSLoadSegmenter", segmenter_name=SEGMENTER)

    def too_big(_net, _given):
        torch.empty(1 << 55)

    hook = segmenter.model.register_forward_pre_hook(too_big)
    try:
        with pytest.raises(torch.cuda.OutOfMemoryError, match="Segment Semantic Prior: out of memory at 30x20 pixels"):
            run(pack, "JoReSSegment", segmenter=segmenter, image=dark(1, 20, 30, 3), class_name="sky")
    finally:
        hook.remove()


@pytest.mark.parametrize("part", ["unet", "rnet", "both"])
def test_memory_runs_out_at_one_step_of_a_stock_sampler_only(pack, part):
    model, nets, _vae = run(pack, "JoReSLoadModel", model_name=SHIPPED)
    given = conditioned(pack, model, nets, dark(1, 100, 140, 3))
    failed, rnet = [], nets.parts["refinement"].model

    def small_device(net, args):
        if args[0].shape[-1] > 100:
            failed.append(net)
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    watched = {"unet": [model.model.diffusion_model.stem], "rnet": [rnet]}
    watched["both"] = watched["unet"] + watched["rnet"]
    if part != "rnet":  # the stem sees a folded picture
        fold = model.model.diffusion_model.config.fold
        watched[part] = [net for net in watched[part] if net is rnet]
        unet_hook = model.model.diffusion_model.stem.register_forward_pre_hook(
            lambda net, args: small_device(net, (torch.empty(1, 1, 1, args[0].shape[-1] * fold),))
        )
    hooks = [net.register_forward_pre_hook(small_device) for net in watched[part]]
    hooks += [unet_hook] if part != "rnet" else []
    try:
        for _prompt in range(2):
            failed.clear()
            with torch.inference_mode():
                made = pack.stock.KSampler().sample(
                    given.model, 3, 4, 1.0, "euler", "simple", given.positive, given.negative, given.latent, 1.0
                )[0]["samples"]
            assert torch.isfinite(made).all() and len(failed) == (2 if part == "both" else 1)
    finally:
        for hook in hooks:
            hook.remove()


class Largest(TorchDispatchMode):
    """The most numbers in any tensor that is made within."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        given = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
        for one in made if isinstance(made, tuple | list) else (made,):
            if isinstance(one, torch.Tensor) and one.untyped_storage().data_ptr() not in given:
                self.numbers = max(self.numbers, one.numel())
        return made


@pytest.mark.parametrize("size", [(2000, 96), (1500, 130), (1025, 64)])
def test_the_colour_cast_is_taken_over_in_bands(size):
    x0, original = dark(1, 3, *size) * 12 - 0.9, dark(1, 3, *size) * torch.tensor([4.0, 3.0, 2.0]).view(1, 3, 1, 1)
    picture = (x0.clamp(-1, 1) + 1) / 2
    cast = ColourCast.of(picture, original, 0.8, torch.Tensor.float)
    want = cast.applied(picture, original, lambda grid: resize_map(grid, size))
    with Largest() as largest:
        made = compositing.finish(x0.clone(), original, FinishOptions(colour_fidelity=0.8), reuse=True)
    torch.testing.assert_close(made, want, atol=1e-5, rtol=0)
    assert largest.numbers <= x0.numel()  # x0's own copy
    with Largest() as largest:
        compositing.finish(x0, original, FinishOptions(colour_fidelity=0.8), reuse=True)
    assert largest.numbers <= 3 * compositing.BAND * size[1]


@pytest.fixture
def enhance(pack, comfy_inprocess, monkeypatch):
    """Enhance Low Light on a bundle of the user's, and what it loads."""
    kept = pack.load("nodes.host.kept")
    folder = comfy_inprocess.base / "models" / "jores"
    folder.mkdir(exist_ok=True)
    checkpoint = pack.load("jores.checkpoint")
    path, loaded = folder / "mine.safetensors", []
    shutil.copy(checkpoint.SHIPPED_WEIGHTS, path)
    for name in ("load_patchers", "load_segmenter"):
        load = getattr(kept, name)
        monkeypatch.setattr(kept, name, lambda *a, load=load, name=name, **k: (loaded.append(name), load(*a, **k))[1])
    image = dark(1, 32, 48, 3)

    def enhance():
        inputs = {"exposure": 0.0, "strength": 1.0, "steps": 1, "seed": 0, "semantic": True}
        return run(pack, "JoReSEnhance", image=image, model_name=path.name, **inputs)[0]

    import comfy.model_management as mm

    mm.unload_all_models()
    return SimpleNamespace(run=enhance, loaded=loaded, path=path, kept=kept)


def test_enhance_keeps_its_nets_until_the_host_needs_the_room_or_the_file_changes(enhance):
    import comfy.model_management as mm

    first = enhance.run()
    assert enhance.loaded == ["load_patchers", "load_segmenter"]
    assert torch.equal(enhance.run(), first) and len(enhance.loaded) == 2
    mm.unload_all_models()
    assert not enhance.kept._bundles.seen and not enhance.kept._segmenters.seen
    assert torch.equal(enhance.run(), first) and len(enhance.loaded) == 4
    os.utime(enhance.path, ns=(1, 1))
    assert torch.equal(enhance.run(), first) and enhance.loaded[4:] == ["load_patchers"]


@pytest.mark.parametrize("how", ["other weights", "damaged", "gone"])
def test_what_is_kept_is_that_of_the_file_as_it_is_now(enhance, how):
    whole = enhance.path.read_bytes()
    first = enhance.run()
    if how == "other weights":
        nets = shaken(TINY)
        save_bundle(enhance.path, nets)
        assert not torch.equal(enhance.run(), first)
    else:
        enhance.path.unlink() if how == "gone" else enhance.path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=r"mine\.safetensors"):
            enhance.run()
    enhance.path.write_bytes(whole)
    assert torch.equal(enhance.run(), first)
    assert enhance.loaded.count("load_segmenter") == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_no_bundle_stays_mapped(enhance, pack):
    """A mapped file could not be replaced on Windows, and on others would change under the nets."""
    enhance.run()
    model, nets, _vae = run(pack, "JoReSLoadModel", model_name=enhance.path.name)
    with open("/proc/self/maps") as maps:
        assert not [line for line in maps if enhance.path.name in line]
    assert model is not None and nets is not None
