"""Flow and features: bounds, resuming, broken videos, room on the disk."""

import extract_features
import extract_flow
import extraction
import puppets as writer
import pytest
import torch
from video_files import cut, noisy, real_samples, write

from lib import backbones2d, datasets, flow, video
from lib.shards import Sharded, Shards

FEATURES = ["--network", "small", "--weights", "puppets", "--frames", "4",
            "--size", "48", "--device", "cpu", "--batch", "3"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Puppets as UCF101, with one broken video."""
    root = tmp_path_factory.mktemp("root")
    writer.main(root, n_train=28, n_test=14, size=32, frames=10)
    lists = root / "ucfTrainTestlist"
    for part, classes in (("train", 4), ("test", 7)):  # fewer: faster
        path = lists / f"{part}list01.txt"
        lines = path.read_text().splitlines()
        kept = sorted({line.split("/")[0] for line in lines})[:classes]
        path.write_text("\n".join(line for line in lines
                                  if line.split("/")[0] in kept))
    cut(root / names_of(root)[3], 0.5)
    return root


def names_of(root):
    """The 8 training and 7 test videos that are listed."""
    return sorted("UCF-101/" + line.split()[0]
                  for path in root.glob("ucfTrainTestlist/*list01.txt")
                  for line in path.read_text().splitlines())


def call(main, root, out, *options):
    return main(["--dataset", "ucf101", "--root", str(root), "--out",
                 str(out), *options])


# ------------------------------------------------------------------ flow


def test_quantised_within_the_stated_bound():
    generator = torch.Generator().manual_seed(0)
    field = 30 * torch.randn(4, 2, 20, 20, generator=generator)
    for bound in (5.0, 20.0):
        kept = flow.quantise(field, bound)
        assert kept.dtype == torch.int8
        back = flow.dequantise(kept, bound)
        error = (back - field.clamp(-bound, bound)).abs().max()
        assert 0 < error <= bound / 254 + 1e-5
        assert back.abs().max() <= bound
    assert torch.equal(flow.dequantise(flow.quantise(torch.zeros(2))),
                       torch.zeros(2))


def test_warped_flow_loses_the_camera_and_keeps_the_person():
    """A camera that turns and moves; a square that goes its own way."""
    y, x = torch.meshgrid(*[torch.arange(64.0)] * 2, indexing="ij")
    camera = torch.stack([3 + 0.02 * x - 0.05 * y, -1 + 0.05 * x + 0.02 * y])
    field = camera.clone()
    field[:, 20:36, 20:36] += torch.tensor([4.0, -3.0])[:, None, None]
    rest = flow.without_camera(field[None])[0]
    inside = torch.zeros(64, 64, dtype=torch.bool)
    inside[20:36, 20:36] = True
    assert rest[:, ~inside].abs().max() < 0.05
    person = rest[:, inside].mean(1)
    turn = torch.tensor([[1.02, -0.05], [0.05, 1.02]])
    own = torch.linalg.solve(turn, torch.tensor([4.0, -3.0]))  # turned back
    assert (person - own).abs().max() < 0.02
    still = torch.zeros(1, 2, 40, 40)
    assert flow.without_camera(still).abs().max() < 1e-3


def test_measured_in_chunks_is_measured_at_once(tmp_path):
    path = real_samples()[0].parent / "test.avi"
    frames = video.read(path, range(20))
    path = write(tmp_path / "a.mp4", frames.permute(0, 2, 3, 1).numpy(),
                 codec="libx264")
    frames = video.read(path)
    whole = flow.quantise(flow.dis(frames))
    found = extract_flow.measure(path)
    assert torch.equal(found["flow"], whole) and found["fps"] == 25
    short = extract_flow.measure(path, short=60)
    assert short["flow"].shape == (19, 2, 60, 80)
    alone = write(tmp_path / "one.avi", noisy(1))
    assert extract_flow.measure(alone)["flow"].shape == (0, 2, 96, 128)


def test_tvl1_where_it_is_there():
    clip = torch.randint(256, (3, 3, 40, 50), dtype=torch.uint8)
    import cv2

    if hasattr(cv2, "optflow"):
        moved = torch.stack([clip[0], clip[0].roll(2, -1)])
        inner = flow.tvl1(moved)[0, :, 8:-8, 8:-8]
        assert (inner.median(-1)[0].median(-1)[0] -
                torch.tensor([2.0, 0.0])).abs().max() < 0.5
    else:
        with pytest.raises(ImportError, match="opencv-contrib"):
            flow.tvl1(clip)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_flow_of_a_data_set(root, tmp_path, capsys, workers):
    assert call(extract_flow.main, root, tmp_path, "--workers", workers) == 1
    said = capsys.readouterr().out
    names = names_of(root)
    assert f"left out: {names[3]}: " in said
    assert "14 of 15 videos" in said and "GB are free" in said
    found = Shards(tmp_path)
    assert sorted(found) == names[:3] + names[4:]
    assert found.settings == {"method": "dis", "short": 0, "warped": False,
                              "bound": 20.0}
    for name in names[:2]:
        want = flow.dis(video.read(root / name))
        back = flow.dequantise(found[name]["flow"], 20.0)
        assert (back - want).abs().max() <= 20 / 254 + 1e-5


def test_goes_on_at_the_video(root, tmp_path, capsys, monkeypatch):
    measured, real = [], extract_flow.measure

    def stopped(path, **settings):
        if len(measured) == 6:
            raise KeyboardInterrupt
        measured.append(path)
        return real(path, **settings)

    monkeypatch.setattr(extract_flow, "measure", stopped)
    with pytest.raises(KeyboardInterrupt):
        call(extract_flow.main, root, tmp_path)
    done = len(Shards(tmp_path))
    assert 0 < done <= 6
    monkeypatch.setattr(extract_flow, "measure", real)
    call(extract_flow.main, root, tmp_path)
    assert f"15 videos, {done} are done" in capsys.readouterr().out
    assert len(Shards(tmp_path)) == 14
    call(extract_flow.main, root, tmp_path)
    assert "15 videos, 14 are done" in capsys.readouterr().out
    with pytest.raises(ValueError, match="another folder"):
        call(extract_flow.main, root, tmp_path, "--warped")


def test_too_little_room_stops_before(root, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(extraction.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="are needed: choose another folder"):
        call(extract_flow.main, root, tmp_path)
    assert 0 < len(Shards(tmp_path)) <= 3  # what was measured is kept


def test_unknown_data_sets_are_named(root, tmp_path):
    with pytest.raises(ValueError, match="kinetics.*choose from.*ucf101"):
        extract_flow.main(["--dataset", "kinetics", "--root", str(root),
                           "--out", str(tmp_path)])


# -------------------------------------------------------------- features


def test_features_of_a_data_set(root, tmp_path, capsys):
    assert call(extract_features.main, root, tmp_path, *FEATURES) == 1
    assert "14 of 15 videos" in capsys.readouterr().out
    splits = datasets.load("ucf101", data_root=root, frames=4, size=48,
                           on_error="skip")
    net = backbones2d.frame_cnn("small", "puppets").eval()
    names = [r.path.relative_to(root).as_posix()
             for r in splits.test.records]
    data = Sharded(tmp_path, names, splits.classes)
    for i in range(len(data)):
        one, want = data[i], splits.test[i]
        assert one["label"] == want["label"] and one["name"] == want["name"]
        with torch.inference_mode():
            cube, vector = net.features(want["video"][None].float() / 255)
        assert one["video_cube"].dtype == torch.float16
        assert torch.allclose(one["video_cube"].float(), cube[0], atol=0.01)
        assert torch.allclose(one["video_vector"].float(), vector[0],
                              atol=0.01)
    assert call(extract_features.main, root, tmp_path, *FEATURES) == 1
    assert "14 are done" in capsys.readouterr().out


def read(name, layer="", clip=8, frames=8):
    torch.manual_seed(0)
    net = extract_features.network(name, None).eval()
    clips = torch.rand(2, frames, 3, 64, 64)
    with torch.inference_mode():
        return net, clips, extract_features.reader(net, layer, clip)(clips)


def test_any_layer_of_any_network():
    net, clips, found = read("small", "stages.conv2.3")
    wanted = net.stages["conv2"][:4](net(clips, "conv1").flatten(0, 1))
    assert torch.allclose(found["video_cube"].flatten(0, 1), wanted,
                          atol=1e-5)
    assert [*found] == ["video_cube"]
    net, clips, found = read("resnet3d_small", frames=8, clip=4)
    wanted = net(clips[1, 4:][None])
    assert found["video_cube"].shape[:2] == (2, 2)
    assert torch.allclose(found["video_cube"][1, 1], wanted[0], atol=1e-4)
    stage = [*net.stages][1]
    net, clips, found = read("resnet3d_small", f"stages.{stage}", clip=8)
    assert torch.allclose(found["video_cube"][:, 0], net(clips, stage),
                          atol=1e-4)
    with pytest.raises(ValueError, match="no layer 'x'.*stages.conv1"):
        read("small", "x")


def test_features_that_overflow_are_left_out(root, tmp_path, monkeypatch):
    def network(name, weights):
        net = backbones2d.frame_cnn("small", "puppets")
        with torch.no_grad():
            net.stages["conv4"][4].weight *= 1e6
        return net

    monkeypatch.setattr(extract_features, "network", network)
    assert call(extract_features.main, root, tmp_path, *FEATURES) == 1
    assert len(Shards(tmp_path)) == 0
