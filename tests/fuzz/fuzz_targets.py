"""One target for each reader: how its file is damaged, signed again, and read."""

import io
import json
import random
import shutil
import struct
import zipfile
from contextlib import redirect_stderr, redirect_stdout, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from fuzz_fixture import CLASSES, PLAN, header, jpeg
from fuzz_mutations import (
    damaged_bytes,
    damaged_json,
    damaged_length_prefixed,
    damaged_table,
    damaged_text,
    damaged_value,
)

from mmcoop.cli.output import report
from mmcoop.comparison.folder import load_comparison
from mmcoop.comparison.jobs import Job
from mmcoop.comparison.summary import summarise
from mmcoop.datasets.clip_reader import read_array
from mmcoop.datasets.feature_files import read_table, read_texts
from mmcoop.datasets.loading import load_batches
from mmcoop.datasets.media import read_footage
from mmcoop.datasets.reader import open_dataset, read_rejects
from mmcoop.datasets.writer import continue_dataset
from mmcoop.errors import DataError
from mmcoop.reading.torch_state import read_torch
from mmcoop.recipes.debiased import _read_scores
from mmcoop.recipes.kinetics_sounds import KineticsSounds
from mmcoop.recipes.mm_debiased import MMDebiased
from mmcoop.recipes.ucf101 import UCF101
from mmcoop.reporting.comparison import comparison_tables, summary_rows
from mmcoop.reporting.describe import dataset_facts, run_facts, scores_facts
from mmcoop.reporting.tables import facts_table, rejects_table
from mmcoop.reporting.valuation import valuation_report
from mmcoop.runtime import Runtime
from mmcoop.scores.precomputed import read_precomputed
from mmcoop.scores.scores import Scores as OpenScores
from mmcoop.training.config import make_config
from mmcoop.training.run import load_run
from mmcoop.training.trainer import Trainer


def printed(answer: Any, *tables: Any) -> str:
    """What a command would print, as tables and as JSON, which must be JSON."""
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        report(answer, tables, as_json=False, quiet=False)
    text = io.StringIO()
    with redirect_stdout(text):
        report(answer, tables, as_json=True, quiet=False)
    json.loads(text.getvalue())
    return out.getvalue() + text.getvalue()


class Target:
    """A file at `path` in a copy of the fixture; `seeds` are whole files, which must be read."""

    path: ClassVar[str] = "file"
    #: Those parts of the fixture that it needs.
    needs: ClassVar[tuple[str, ...]] = ()
    #: How many of all executions are its own, relative to others.
    share: ClassVar[float] = 1.0
    #: Whether what is damaged is passed over and made again, rather than refused.
    recovers: ClassVar[bool] = False

    def __init__(self, fixture: Path, work: Path) -> None:
        work.mkdir()
        for name in self.needs:
            kept = fixture / name
            (shutil.copytree if kept.is_dir() else shutil.copy)(kept, work / name)
        self.work = work
        self.file = work / self.path
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.seeds = self.make_seeds()

    def make_seeds(self) -> list[bytes]:
        return [self.file.read_bytes()]

    def damaged(self, rng: random.Random) -> bytes:
        return damaged_bytes(rng, rng.choice(self.seeds))

    def read(self, content: bytes) -> str | None:
        """Write the file and read it; returns what is printed of it."""
        self.file.write_bytes(content)
        return self.opened()

    def opened(self) -> str | None:
        raise NotImplementedError


class Json(Target):
    share = 3.0

    def damaged(self, rng: random.Random) -> bytes:
        return damaged_json(rng, rng.choice(self.seeds))


class DatasetJson(Json):
    path, needs = "data/dataset.json", ("data",)

    def opened(self) -> str:
        dataset = open_dataset(self.work / "data")
        for name in ("train", "validation"):
            list(load_batches(dataset.split(name), batch_size=4, seed=0))
        facts = dataset_facts(dataset)
        return printed(facts, facts_table(facts))


class RunJson(Json):
    path, needs = "run/run.json", ("run",)

    def opened(self) -> str:
        run = load_run(self.work / "run")
        facts = run_facts(run)
        shown = printed(facts, facts_table(facts))
        run.model  # noqa: B018 - it is built and loaded
        return shown


class RunJsonResumed(Json):
    path, needs = "run/run.json", ("run", "data")

    def opened(self) -> None:
        run = load_run(self.work / "run")
        dataset = open_dataset(self.work / "data")
        run.check_dataset(dataset)
        run.check_architecture(dataset)
        Trainer(run, dataset, Runtime(device="cpu")).load(run.last)


class CheckpointJson(Json):
    path, needs = "run/checkpoints/best/checkpoint.json", ("run",)

    def opened(self) -> str:
        facts = run_facts(load_run(self.work / "run"))
        return printed(facts, facts_table(facts))


class ComparisonJson(Json):
    path, needs = "compared/comparison.json", ("compared",)
    share = 0.5

    def opened(self) -> str:
        comparison = load_comparison(self.work / "compared")
        summary = summarise(comparison)
        return printed(summary_rows(summary), *comparison_tables(comparison, summary))


class OutcomeJson(Json):
    path, needs = "compared/results/joint-concat-seed0.json", ("compared",)

    def opened(self) -> None:
        job = Job(self.work, make_config({}), self.file)
        job.done  # noqa: B018 - it is read


class List(Target):
    """The list of MM-Debiased."""

    path = "list.json"
    share = 3.0

    def make_seeds(self) -> list[bytes]:
        entries = {
            f"{letter * 11}_00000{k}_00001{k}": {"subset": subset, "label": "bowling"}
            for k, (letter, subset) in enumerate(
                zip("abc", ("training", "validation", "testing"), strict=True)
            )
        }
        return [json.dumps(entries, indent=1).encode()]

    def damaged(self, rng: random.Random) -> bytes:
        return damaged_json(rng, rng.choice(self.seeds))

    def opened(self) -> None:
        (self.work / "clips").mkdir(exist_ok=True)
        MMDebiased(source=self.work / "clips", list=self.file).listing()


class KineticsList(Target):
    path = "lists/train.txt"
    share = 2.0

    def make_seeds(self) -> list[bytes]:
        text = b"".join(b"%s_%d,10,%d\n" % (b"abcdefghijk", k, k) for k in range(4))
        (self.work / "lists" / "test.txt").write_bytes(text)
        (self.work / "clips").mkdir()
        return [text]

    def damaged(self, rng: random.Random) -> bytes:
        return damaged_text(rng, self.seeds[0])

    def opened(self) -> None:
        recipe = KineticsSounds(
            source=self.work / "clips",
            train_list=self.file,
            test_list=self.work / "lists" / "test.txt",
        )
        recipe.listing()


class UcfList(Target):
    path = "lists/trainlist01.txt"
    share = 2.0

    def make_seeds(self) -> list[bytes]:
        lists = self.work / "lists"
        (lists / "classInd.txt").write_text("1 Archery\n2 YoYo\n")
        (lists / "testlist01.txt").write_text("YoYo/v_YoYo_g01_c01.avi\n")
        (self.work / "clips").mkdir()
        return [b"Archery/v_Archery_g08_c01.avi 1\nYoYo/v_YoYo_g09_c02.avi 2\n"]

    def damaged(self, rng: random.Random) -> bytes:
        return damaged_text(rng, self.seeds[0])

    def opened(self) -> None:
        UCF101(source=self.work / "clips", splits=self.work / "lists").listing()


class Parquet(Target):
    """A Parquet file, its bytes damaged or its values."""

    what: ClassVar[dict[str, Any]] = {}

    def damaged(self, rng: random.Random) -> bytes:
        seed = rng.choice(self.seeds)
        if rng.random() < 0.5:
            return damaged_bytes(rng, seed)
        table = pq.read_table(io.BytesIO(seed))
        metadata = dict(table.schema.metadata or {})
        for key in (b"mmcoop", b"pandas"):
            if key in metadata and rng.random() < 0.3:
                metadata[key] = damaged_json(rng, metadata[key])
        columns = {name: table[name].to_pylist() for name in table.column_names}
        if rng.random() < 0.7:
            columns = damaged_table(rng, columns)
        out = io.BytesIO()
        with suppress(pa.ArrowException, ValueError, TypeError, OverflowError, UnicodeError):
            arrays = {name: _array(cells, rng) for name, cells in columns.items()}
            pq.write_table(
                pa.table(arrays).replace_schema_metadata(metadata),
                out,
                write_page_checksum=rng.random() < 0.2,
                compression=rng.choice(("snappy", "none")),
            )
        return out.getvalue()


def _array(cells: list[Any], rng: random.Random) -> pa.Array:
    try:
        found = pa.array(cells)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        found = pa.array([ascii(cell) for cell in cells])
    if rng.random() < 0.05:
        with suppress(pa.ArrowException):
            kinds = (pa.string(), pa.large_string(), pa.float64(), pa.int8(), pa.decimal128(30, 2))
            return found.cast(rng.choice(kinds))
        return found.dictionary_encode() if rng.random() < 0.5 else found
    return found


class Metrics(Parquet):
    path, needs = "run/metrics.parquet", ("run",)

    def opened(self) -> str:
        facts = run_facts(load_run(self.work / "run"))
        return printed(facts, facts_table(facts))


class Scores(Parquet):
    path, needs = "scores.parquet", ("scores.parquet", "data")

    def opened(self) -> str:
        scores = OpenScores.open(self.file)
        facts = scores_facts(scores)
        answer, tables = valuation_report(scores, {"run": "sample"})
        shown = printed({**facts, "summary": answer}, facts_table(facts), *tables)
        dataset = open_dataset(self.work / "data")
        for read in (
            lambda: read_precomputed(self.file, dataset, ["sound", "touch"]),
            lambda: _read_scores(self.file, dataset),
        ):
            with suppress(DataError):
                read()
        return shown


class Rejects(Parquet):
    path, needs = "data/rejects.parquet", ("data",)

    def opened(self) -> str:
        rejects = read_rejects(self.file)
        return printed([reject._asdict() for reject in rejects], rejects_table(rejects))


class ComparedRuns(Parquet):
    path, needs = "compared/runs.parquet", ("compared",)
    share = 0.5

    def opened(self) -> str:
        comparison = load_comparison(self.work / "compared")
        summary = summarise(comparison)
        return printed(summary_rows(summary), *comparison_tables(comparison, summary))


class ComparedScores(ComparedRuns):
    path = "compared/scores/joint-concat-seed0.parquet"


class FeaturesParquet(Parquet):
    path = "features.parquet"

    def make_seeds(self) -> list[bytes]:
        columns = {
            "id": ["a", "b", "c"],
            "label": ["x", "y", "x"],
            "split": ["train", "test", "validation"],
            "f1": [1.5, None, 3.0],
            "f2": [1, 2, 3],
        }
        found = []
        for more in ({}, {"embedding": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]}):
            out = io.BytesIO()
            pq.write_table(pa.table({**columns, **more}), out)
            found.append(out.getvalue())
        out = io.BytesIO()
        pa.table(columns).to_pandas().set_index("id").to_parquet(out)
        return [*found, out.getvalue()]

    def opened(self) -> None:
        with suppress(DataError):
            read_texts(self.file)
        read_table(self.file, None, "id", False)


class FeaturesCsv(Target):
    path = "features.csv"
    share = 2.0

    def make_seeds(self) -> list[bytes]:
        plain = "id,label,split,f1,f2\na,x,train,1.5,2\nb,y,test,,3\nc,x,validation,3,4\n"
        comma = "sep=;\nid;label;f1\na;x;1,5\nb;y;2,25\n"
        return [plain.encode(), comma.encode(), plain.encode("utf-16")]

    def damaged(self, rng: random.Random) -> bytes:
        return damaged_text(rng, rng.choice(self.seeds))

    def opened(self) -> None:
        with suppress(DataError):
            read_texts(self.file)
        read_table(self.file, None, "id", False)


class FeaturesNpy(Target):
    path = "features.npy"
    share = 3.0

    def make_seeds(self) -> list[bytes]:
        found = []
        for array in (np.ones((3, 2)), np.ones((3, 4, 2), np.float16), np.arange(3, dtype=">i4")):
            out = io.BytesIO()
            np.save(out, array)
            found.append(out.getvalue())
        return found

    def damaged(self, rng: random.Random) -> bytes:
        seed = rng.choice(self.seeds)
        if rng.random() < 0.5:
            return damaged_bytes(rng, seed)
        (length,) = struct.unpack("<H", seed[8:10])
        text = damaged_bytes(rng, seed[10 : 10 + length])
        if rng.random() < 0.5:
            shape = tuple(
                rng.choice((0, 1, 3, -1, 2**31, 2**62, 10**30)) for _ in range(rng.randrange(5))
            )
            text = repr(
                {
                    "descr": rng.choice(("<f8", "|O", "|V9", "<U9", "")),
                    "fortran_order": False,
                    "shape": shape,
                }
            ).encode()
        return seed[:8] + struct.pack("<H", len(text) % 65536) + text + seed[10 + length :]

    def opened(self) -> None:
        with suppress(DataError):
            read_array(self.file)
        with suppress(DataError):
            read_table(self.file, None, "id", True)
        table = read_table(self.file, None, "id", False)
        np.asarray(table.values[:2], np.float64).sum()


class Shard(Target):
    """A shard of a data set, its sha256 signed again."""

    path, needs = "data/train-00000-of-00001.arrow", ("data",)
    folder = "data"

    def read(self, content: bytes) -> str | None:
        self.file.write_bytes(content)
        about = self.work / self.folder / "dataset.json"
        stated = json.loads(about.read_text())
        (shard,) = stated["splits"]["train"]["shards"]
        shard["bytes"], shard["sha256"] = len(content), sha256(content).hexdigest()
        about.write_text(json.dumps(stated))
        return self.opened()

    def opened(self) -> None:
        split = open_dataset(self.work / self.folder).split("train")
        for seed in (None, 0):
            for batch in load_batches(split, batch_size=4, seed=seed, with_ids=True):
                assert len(batch.labels) == len(batch.ids or ())
        split.table.to_pylist()


class FramesShard(Shard):
    path, needs, folder = "frames/train-00000-of-00001.arrow", ("frames",), "frames"


class StoredPicture(Target):
    """JPEG bytes in a shard."""

    share = 2.0

    def make_seeds(self) -> list[bytes]:
        return [jpeg(12, 0), jpeg(40, 1)]

    def read(self, content: bytes) -> None:
        from mmcoop.reading.pictures import decode_jpeg

        assert decode_jpeg(content).ndim == 3


class Weights(Target):
    path, needs = "run/checkpoints/best/model.safetensors", ("run",)
    share = 0.5

    def damaged(self, rng: random.Random) -> bytes:
        return damaged_length_prefixed(rng, self.seeds[0])

    def opened(self) -> None:
        load_run(self.work / "run").model  # noqa: B018 - it is built and loaded


class State(Target):
    """The state of a training, its archive written again with right checksums."""

    path, needs = "run/checkpoints/last/state.pt", ("run", "data")

    def make_seeds(self) -> list[bytes]:
        run, dataset = load_run(self.work / "run"), open_dataset(self.work / "data")
        self.training = Trainer(run, dataset, Runtime(device="cpu"))
        self.checkpoint = run.last
        return [self.file.read_bytes()]

    def damaged(self, rng: random.Random) -> bytes:
        seed = self.seeds[0]
        kind = rng.randrange(3)
        if kind == 0:
            return damaged_bytes(rng, seed)
        if kind == 1:
            return repacked(rng, seed)
        state = damaged_value(rng, torch.load(io.BytesIO(seed), weights_only=True))
        out = io.BytesIO()
        torch.save(state, out)
        return out.getvalue()

    def opened(self) -> None:
        self.training.load(self.checkpoint)
        for group in self.training.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        self.training.optimizer.step()


def repacked(rng: random.Random, seed: bytes) -> bytes:
    """A file of torch.save with damaged parts, in an archive that is whole."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(seed)) as whole, zipfile.ZipFile(out, "w") as archive:
        chosen = rng.choice([*whole.namelist(), *["data.pkl"] * len(whole.namelist())])
        for name in whole.namelist():
            content = whole.read(name)
            if name.endswith(chosen):
                content = damaged_bytes(rng, content)
            archive.writestr(name, content)
    return out.getvalue()


class TorchFile(Target):
    """Any file of torch.save."""

    path = "file.pt"
    share = 2.0

    def make_seeds(self) -> list[bytes]:
        out = io.BytesIO()
        module = torch.nn.BatchNorm1d(3)
        torch.save(
            {
                "w": module.state_dict(),
                "n": [1, 2.5, "a", None, (True,)],
                "t": torch.arange(6).view(2, 3),
            },
            out,
        )
        return [out.getvalue()]

    def damaged(self, rng: random.Random) -> bytes:
        return repacked(rng, self.seeds[0])

    def opened(self) -> None:
        read_torch(self.file)


class UnfinishedShard(Target):
    """A shard of an unfinished build, which the same command resumes."""

    path, needs = ".unfinished.building/train-00000.arrow", (".unfinished.building",)
    share = 0.5

    def read(self, content: bytes) -> None:
        shutil.rmtree(self.work / ".unfinished.building", ignore_errors=True)
        shutil.copytree(self.kept, self.work / ".unfinished.building")
        self.file.write_bytes(content)
        self.sign(content)
        self.opened()

    def make_seeds(self) -> list[bytes]:
        self.kept = self.work / "kept"
        shutil.copytree(self.work / ".unfinished.building", self.kept)
        return [self.file.read_bytes()]

    def sign(self, content: bytes) -> None:
        """Record the hash of the damaged shard as that of all of it."""
        ledger = self.file.parent / "written.jsonl"
        lines = [json.loads(line) for line in ledger.read_text().splitlines()]
        kept = [line for line in lines if line["file"] != self.file.name]
        mine = {"file": self.file.name, "end": len(content), "sha256": sha256(content).hexdigest()}
        ledger.write_text("".join(json.dumps(line) + "\n" for line in [*kept, mine]))

    def opened(self) -> None:
        shutil.rmtree(self.work / "unfinished", ignore_errors=True)
        with continue_dataset(self.work / "unfinished", header(), PLAN) as writer:
            rng = np.random.default_rng(0)
            for k, split in enumerate(("train", "validation", "test")):
                more = {"sound": rng.normal(0, 1, 3), "touch": rng.normal(0, 1, (4, 2))}
                writer.add(
                    split, id=f"more-{k}", label=0, group=f"g-{k}", quality=0.1, note="n", **more
                )
        assert open_dataset(self.work / "unfinished").classes == CLASSES


class UnfinishedRejects(UnfinishedShard):
    path = ".unfinished.building/rejects.jsonl"
    recovers = True

    def damaged(self, rng: random.Random) -> bytes:
        return damaged_json(rng, self.seeds[0]) + b"\n"

    def sign(self, content: bytes) -> None:
        """It has no hash."""


class UnfinishedLedger(UnfinishedRejects):
    path = ".unfinished.building/written.jsonl"

    def damaged(self, rng: random.Random) -> bytes:
        lines = self.seeds[0].splitlines()
        k = rng.randrange(len(lines))
        lines[k] = damaged_json(rng, lines[k])
        return b"\n".join(lines) + b"\n"


class Media(Target):
    """Films and sounds."""

    path = "clip.mkv"
    share = 0.15

    def make_seeds(self) -> list[bytes]:
        import av

        found = []
        for name, codec in (("clip.mkv", "mpeg4"), ("clip.mp4", "mpeg4"), ("clip.avi", "mjpeg")):
            path = self.work / f"made-{name}"
            with av.open(str(path), "w") as container:
                video = container.add_stream(codec, rate=10)
                video.width = video.height = 32
                video.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
                sound = container.add_stream(
                    "pcm_s16le" if name != "clip.mp4" else "aac", rate=16000
                )
                sound.layout = "mono"
                for k in range(12):
                    picture = np.full((32, 32, 3), 20 * k, np.uint8)
                    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                    frame.pts = k
                    container.mux(video.encode(frame))
                container.mux(video.encode(None))
                tone = (np.sin(np.arange(19200) / 9) * 9000).astype(np.int16)
                frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
                frame.sample_rate = 16000
                container.mux(sound.encode(frame))
                container.mux(sound.encode(None))
            found.append(path.read_bytes())
        return found

    def opened(self) -> None:
        read_footage(
            self.file,
            start=None,
            end=None,
            frames=2,
            pairs=False,
            short_side=16,
            rate=16000,
            threads=1,
        )


TARGETS: dict[str, type[Target]] = {
    each.__name__: each
    for each in (
        DatasetJson,
        RunJson,
        RunJsonResumed,
        CheckpointJson,
        ComparisonJson,
        OutcomeJson,
        List,
        KineticsList,
        UcfList,
        Metrics,
        Scores,
        Rejects,
        ComparedRuns,
        ComparedScores,
        FeaturesParquet,
        FeaturesCsv,
        FeaturesNpy,
        Shard,
        FramesShard,
        StoredPicture,
        Weights,
        State,
        TorchFile,
        UnfinishedShard,
        UnfinishedRejects,
        UnfinishedLedger,
        Media,
    )
}
