"""Hostile trainer_0.json: typed JSON that means nothing, or would mean too much."""

from __future__ import annotations

import json
from collections.abc import Iterator

from hostile.cases import TRAINER, Case, Json, plain, with_trainer
from spec.typed import compact


def trainer_cases() -> Iterator[Case]:
    """trainer_0.json with right digests. Loading a checkpoint must refuse it."""
    base = plain()
    good = json.loads(base[TRAINER])

    def text(name: str, data: str | bytes) -> Case:
        return Case(f"trainer: {name}", with_trainer(base, data), frozenset({"load_checkpoint"}))

    def args(name: str, value: str) -> Case:
        return text(f"trainer_args {name}", compact(good | {"trainer_args": "@"}).replace('"@"', value))

    def value(name: str, value: str) -> Case:
        return text(f"values {name}", compact(good | {"values": {"epoch": "@"}}).replace('"@"', value))

    for field in good:
        yield text(f"missing {field}", compact({k: v for k, v in good.items() if k != field}))
    wrong: dict[str, list[Json]] = {
        "format": [None, 1, "", "holdfast"],
        "version": [None, 1, "1", [], [1], ["1", "0"], [2, 0], [10**6, 0], [-1, 0], [True, 0], [1.0, 0]],
        "trainer_id": [None, "0", 0.0, False, -1, 1, 10**400],
        "values": [None, 1, "", [], [["epoch", 1]]],
    }
    for field, values in wrong.items():
        for bad in values:
            yield text(f"{field} = {str(bad)[:20]!r} ({type(bad).__name__})", compact(good | {field: bad}))
    for whole in ("", "null", "[]", "1", "{", '"x"', "{}", "{}{}", "\ufeff{}", "\0", " "):
        yield text(f"is {whole!r}", whole)
    yield text("is not UTF-8", b'{"\xff":1}')
    yield text("is truncated", base[TRAINER][:-2])
    yield text("has a key twice", base[TRAINER].replace(b'"values"', b'"values":{},"values"'))
    yield text("has a key twice in trainer_args", base[TRAINER].replace(b'"epoch":2', b'"epoch":1,"epoch":2'))
    yield text("has a key twice in values", base[TRAINER].replace(b'"epoch":3', b'"epoch":1,"epoch":3'))
    hostile = {
        "unknown tag": '{"$eval":"__import__(\'os\').system(\'true\')"}',
        "unknown tag with array": '{"$pickle":[1]}',
        "empty tag": '{"$":1}',
        "NaN": "NaN",
        "Infinity": "Infinity",
        "1e999": "1e999",
        "-1e999": "-1e999",
        "$float number": '{"$float":1}',
        "$float word": '{"$float":"infinity"}',
        "$float digits": '{"$float":"1.5"}',
        "$float array": '{"$float":["nan"]}',
        "$tuple object": '{"$tuple":{"a":1}}',
        "$tuple string": '{"$tuple":"abc"}',
        "$tuple null": '{"$tuple":null}',
        "$dict object": '{"$dict":{"a":1}}',
        "$dict of strings": '{"$dict":["ab"]}',
        "$dict of singles": '{"$dict":[[1]]}',
        "$dict of triples": '{"$dict":[[1,2,3]]}',
        "$dict of null": '{"$dict":null}',
        "$dict with an array as key": '{"$dict":[[[1],2]]}',
        "$dict with an object as key": '{"$dict":[[{"a":1},2]]}',
        "$dict with an $array as key": '{"$dict":[[{"$array":["U8",[1],[1]]},2]]}',
        "$dict with a key twice": '{"$dict":[[1,2],[1,3]]}',
        "$scalar dtype": '{"$scalar":["F31",1]}',
        "$scalar dtype array": '{"$scalar":[["F32"],1]}',
        "$scalar dtype object": '{"$scalar":[{"a":1},1]}',
        "$scalar without value": '{"$scalar":["F32"]}',
        "$scalar three": '{"$scalar":["F32",1,2]}',
        "$scalar string": '{"$scalar":["F32","1.5"]}',
        "$scalar array": '{"$scalar":["F32",[1,2]]}',
        "$scalar null": '{"$scalar":["F32",null]}',
        "$scalar bool as float": '{"$scalar":["F32",true]}',
        "$scalar too large": '{"$scalar":["U8",256]}',
        "$scalar negative": '{"$scalar":["U8",-1]}',
        "$scalar huge": f'{{"$scalar":["I64",{10**400}]}}',
        "$scalar float too large": '{"$scalar":["F32",1e300]}',
        "$scalar F16 too large": '{"$scalar":["F16",65536.0]}',
        "$scalar BF16 too large": '{"$scalar":["BF16",1e300]}',
        "$scalar F8_E4M3 too large": '{"$scalar":["F8_E4M3",1e300]}',
        "$scalar F8_E5M2 too large": '{"$scalar":["F8_E5M2",1e300]}',
        "$scalar C64 too large": '{"$scalar":["C64",[0.0,1e300]]}',
        "$scalar F32 integer too large": f'{{"$scalar":["F32",{10**400}]}}',
        "$scalar of a $scalar": '{"$scalar":["F32",{"$scalar":["F32",1.0]}]}',
        "$scalar fraction": '{"$scalar":["I32",1.5]}',
        "$scalar float as int": '{"$scalar":["I32",1.0]}',
        "$scalar BOOL number": '{"$scalar":["BOOL",2]}',
        "$scalar BOOL string": '{"$scalar":["BOOL","false"]}',
        "$scalar C64 number": '{"$scalar":["C64",1]}',
        "$scalar C64 triple": '{"$scalar":["C64",[1,2,3]]}',
        "$scalar C64 strings": '{"$scalar":["C64",["1","2"]]}',
        "$array too few": '{"$array":["U8",[3],[1,2]]}',
        "$array too many": '{"$array":["U8",[1],[1,2]]}',
        "$array huge": '{"$array":["U8",[1000000000000],[]]}',
        "$array overflow": '{"$array":["U8",[4294967296,4294967296],[]]}',
        "$array huge and empty": '{"$array":["F64",[9223372036854775807,0],[]]}',
        "$array negative": '{"$array":["U8",[-1],[1]]}',
        "$array two negatives": '{"$array":["U8",[-1,-1],[1]]}',
        "$array a million dimensions": '{"$array":["U8",[' + ",".join(["1"] * 1_000_000) + "],[1]]}",
        "$array no shape": '{"$array":["U8",null,[1]]}',
        "$array number as shape": '{"$array":["U8",1,[1]]}',
        "$array bool in shape": '{"$array":["U8",[true],[1]]}',
        "$array float in shape": '{"$array":["U8",[1.0],[1]]}',
        "$array nested elements": '{"$array":["U8",[2],[[1],[2]]]}',
        "$array strings": '{"$array":["F32",[1],["1"]]}',
        "$array object dtype": '{"$array":["O",[1],[1]]}',
        "$variable of an unknown name": '{"$variable":"nobody"}',
        "$variable number": '{"$variable":1}',
        "$variable array": '{"$variable":["fc.w"]}',
        "$variable null": '{"$variable":null}',
        "$random unknown type": '{"$random":["os.system","true"]}',
        "$random importable type": '{"$random":["subprocess.Popen",["true"]]}',
        "$random without state": '{"$random":["numpy.random.Generator"]}',
        "$random wrong state": '{"$random":["numpy.random.Generator",{"bit_generator":"os"}]}',
        "$random state of null": '{"$random":["numpy.random.RandomState",null]}',
        "$random number": '{"$random":1}',
        "$random empty": '{"$random":[]}',
        "integer of a million digits": "9" * 1_000_000,
        "negative integer of a million digits": "-" + "9" * 1_000_000,
        "float of a million digits": "1e-" + "9" * 1_000_000 + "x",
        "$scalar integer of a million digits": f'{{"$scalar":["U64",{"9" * 1_000_000}]}}',
        "half a surrogate pair as tag": '{"$\\ud800":1}',
    }  # fmt: skip
    for name, bad in hostile.items():
        if "$variable" not in name and "$random" not in name:
            yield args(name, bad)
        yield value(name, bad)
    for levels in (5_000, 100_000, 1_000_000):
        for begin, end in (("[", "]"), ('{"a":', "}"), ('{"$tuple":[', "]}")):
            yield args(f"{levels} levels of {begin}", begin * levels + end * levels)
        yield args(f"{levels} brackets never closed", "[" * levels)
        yield value(f"{levels} levels", "[" * levels + "]" * levels)
