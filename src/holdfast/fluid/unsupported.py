"""Names of Fluid that do nothing here yet: each can be imported and passed on, and says what it is when it is called.

Old programs import such names at their top and use them in branches that never run. The table says what each is, and the tier:
3 (sequences) and 4 (control flow over sequences, CRF, beam search) are planned, 5 is not.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from types import ModuleType

from holdfast.fluid.paddle.unplanned import Unplanned, UnplannedModule


@dataclass(frozen=True, slots=True)
class Missing:
    """What a group of names is.

    Attributes:
        what: what they are about.
        tier: 3 and 4 are planned, 5 is not.
        instead: what to use; may be empty.
    """

    what: str
    tier: int
    instead: str = ""

    @property
    def why(self) -> str:
        """Half a sentence for an error."""
        plan = "planned, and not supported yet" if self.tier < 5 else "not planned"
        return f"{self.what} are {plan}" + (f"; {self.instead}" if self.instead else "")


_SEQUENCES = Missing("sequences of different lengths (LoD)", 3, "pad them to one length")
_RECURRENT = Missing("recurrent layers", 3, "unroll the steps with fc and elementwise layers")
_LOOPS = Missing("loops, and arrays of tensors", 4, "unroll the steps; cond, case and switch_case are there")
_CRF = Missing("conditional random fields and their metrics", 4)
_BEAM = Missing("beam search and decoders", 4)
_CTC = Missing("CTC and edit distances", 5)
_DETECTION = Missing("layers for object detection", 5)
_SAMPLED = Missing("losses that sample classes", 5, "softmax_with_cross_entropy takes all of them")
_DYNAMIC = Missing(
    "results whose shape depends on values", 5, "XLA compiles for fixed shapes; mask with elementwise layers"
)
_PSERVER = Missing(
    "parameter servers and fleets", 5, "fluid.CompiledProgram.with_data_parallel uses all devices of a machine"
)
_SPARSE = Missing("sparse rows and their layers", 5, "gradients are dense")
_OTHER = Missing("these rarely used layers", 5)
_PYTHON = Missing("Python functions inside a program", 5, "fetch what the function needs, and feed what it gives")
_DISTRIBUTIONS = Missing("probability distributions", 5, "they are a few layers each")
_EAGER = Missing("eager mode (dygraph) and its layers", 5, "build a Program")
_CONTRIB = Missing("contrib modules", 5)
_TOOLS = Missing("tools that draw, check or extend Fluid's own binaries", 5, "print str(program)")
_DATASETS = Missing("in-memory datasets and their trainers", 5, "use a reader or fluid.io.DataLoader")

_LAYERS: dict[Missing, str] = {
    _SEQUENCES: (
        "sequence_conv sequence_softmax sequence_pool sequence_concat sequence_first_step sequence_last_step sequence_slice "
        "sequence_expand sequence_expand_as sequence_pad sequence_unpad sequence_reshape sequence_scatter sequence_enumerate "
        "sequence_mask sequence_reverse lod_reset lod_append"
    ),
    _RECURRENT: (
        "dynamic_lstm dynamic_lstmp dynamic_gru gru_unit lstm_unit lstm row_conv RNNCell GRUCell LSTMCell rnn"
    ),
    _LOOPS: (
        "While while_loop DynamicRNN StaticRNN IfElse ParallelDo array_write array_read array_length create_array "
        "tensor_array_to_tensor reorder_lod_tensor_by_rank lod_rank_table max_sequence_len lod_tensor_to_array "
        "array_to_lod_tensor shrink_memory split_lod_tensor merge_lod_tensor"
    ),
    _CRF: "linear_chain_crf crf_decoding chunk_eval",
    _BEAM: (
        "beam_search beam_search_decode gather_tree Decoder BeamSearchDecoder BasicDecoder dynamic_decode DecodeHelper "
        "TrainingHelper GreedyEmbeddingHelper SampleEmbeddingHelper"
    ),
    _CTC: "warpctc ctc_greedy_decoder edit_distance im2sequence",
    _DETECTION: (
        "prior_box density_prior_box multi_box_head bipartite_match target_assign detection_output ssd_loss rpn_target_assign "
        "retinanet_target_assign sigmoid_focal_loss anchor_generator roi_perspective_transform generate_proposal_labels "
        "generate_proposals generate_mask_labels iou_similarity box_coder polygon_box_transform yolov3_loss yolo_box box_clip "
        "multiclass_nms locality_aware_nms matrix_nms retinanet_detection_output distribute_fpn_proposals detection_map "
        "box_decoder_and_assign collect_fpn_proposals roi_pool roi_align psroi_pool prroi_pool deformable_conv "
        "deformable_roi_pooling"
    ),
    _SAMPLED: "nce hsigmoid sampled_softmax_with_cross_entropy",
    _DYNAMIC: "where nonzero unique unique_with_counts filter_by_instag",
    _PSERVER: "get_places Send Recv ListenAndServ",
    _SPARSE: "merge_selected_rows get_tensor_from_selected_rows",
    _OTHER: "data_norm similarity_focus hash continuous_value_model interpolate load open_files open_recordio_file",
    _PYTHON: "py_func",
    _DISTRIBUTIONS: "Uniform Normal Categorical MultivariateNormalDiag",
}
_FLUID: dict[Missing, str] = {
    _LOOPS: "LoDTensorArray",
    _PSERVER: (
        "DistributeTranspiler DistributeTranspilerConfig HashName RoundRobin TrainerDesc MultiTrainer DistMultiTrainer "
        "PipelineTrainer"
    ),
    _DATASETS: "DataFeedDesc DatasetFactory InMemoryDataset QueueDataset AsyncExecutor",
    _EAGER: "ComplexVariable VarBase enable_dygraph disable_dygraph enable_imperative disable_imperative",
    _TOOLS: "load_op_library InferenceTranspiler",
}
_TRANSPILER = {
    _PSERVER: "DistributeTranspiler DistributeTranspilerConfig HashName RoundRobin",
    _TOOLS: "InferenceTranspiler",
}
# Modules all of whose names, and modules below them, are missing.
MODULES: dict[str, Missing] = {
    "communicator": _PSERVER,
    "contrib": _CONTRIB,
    "contrib.mixed_precision": _CONTRIB,
    "contrib.slim": _CONTRIB,
    "dataset": _DATASETS,
    "debugger": _TOOLS,
    "dygraph": _EAGER,
    "graphviz": _TOOLS,
    "incubate": _PSERVER,
    "incubate.data_generator": _PSERVER,
    "incubate.fleet": _PSERVER,
    "incubate.fleet.base": _PSERVER,
    "incubate.fleet.base.role_maker": _PSERVER,
    "incubate.fleet.collective": _PSERVER,
    "incubate.fleet.parameter_server": _PSERVER,
    "incubate.fleet.parameter_server.distribute_transpiler": _PSERVER,
    "incubate.fleet.utils": _PSERVER,
    "install_check": _TOOLS,
    "net_drawer": _TOOLS,
    "recordio_writer": _DATASETS,
    "trainer_desc": _DATASETS,
}
# Where Fluid 1.0 put modules that were its own before, and are here.
MOVED = {"contrib.inferencer": "inferencer", "contrib.trainer": "trainer"}


def names(where: str) -> dict[str, Missing]:
    """What is missing in `fluid`, `layers` or `transpiler`, by name."""
    groups = {"fluid": _FLUID, "layers": _LAYERS, "transpiler": _TRANSPILER}[where]
    return {name: missing for missing, text in groups.items() for name in text.split()}


def stubs(where: str) -> dict[str, Unplanned]:
    """For each of `names` what stands there: callable, and refusing."""
    prefix = "fluid" if where == "fluid" else f"fluid.{where}"
    return {name: Unplanned(f"{prefix}.{name}", missing.why) for name, missing in names(where).items()}


def modules() -> dict[str, ModuleType]:
    """The modules of `MODULES`, importable from now on; those of `MOVED` are so below them."""
    made: dict[str, ModuleType] = {}
    for name, missing in MODULES.items():
        full = f"holdfast.fluid.{name}"
        # It says the name that programs know, which serving.py leads here.
        module = sys.modules.setdefault(full, UnplannedModule(f"paddle.fluid.{name}", missing.why))
        if "." in name:
            outer, _, last = full.rpartition(".")
            setattr(sys.modules[outer], last, module)
        else:
            made[name] = module
    for name, own in MOVED.items():
        outer, _, last = name.rpartition(".")
        moved = importlib.import_module(f"holdfast.fluid.{own}")
        sys.modules.setdefault(f"holdfast.fluid.{name}", moved)
        setattr(made[outer], last, moved)
    return made
