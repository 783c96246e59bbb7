"""A training program: a Hugging Face Trainer on the digits. Usage: digits_transformers.py RUN [--accumulate] [--end-by-signal]."""

import json
import os
import signal
import sys

import numpy as np
import torch
from resuming import digest, images
from transformers import GPT2Config, GPT2ForSequenceClassification, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import ExportableState, PrinterCallback

import holdfast
from holdfast.integrations.transformers import HoldfastCallback

run, accumulation = sys.argv[1], 2 if "--accumulate" in sys.argv else 1
goes_on = os.path.isdir(run)
torch.set_num_threads(1)


class Counting(TrainerCallback, ExportableState):
    """A callback with a state of its own, which says what was done."""

    def __init__(self, steps: int = 0) -> None:
        self.steps = steps

    def on_step_begin(self, args: TrainingArguments, state: object, control: object, **_: object) -> None:
        print(f"did {state.global_step}", flush=True)
        if "--end-by-signal" in sys.argv and state.global_step == 10:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_step_end(self, *_: object, **__: object) -> None:
        self.steps += 1

    def state(self) -> dict:
        return {"args": {"steps": self.steps}, "attributes": {}}


class Digits(torch.utils.data.Dataset):
    """Images of 8 × 8 as 64 words of 0 to 16."""

    def __init__(self, rows: slice) -> None:
        x, y = images()
        self.words, self.labels = torch.from_numpy((x[rows] * 16).astype(np.int64)), torch.from_numpy(y[rows])

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, row: int) -> dict:
        return {"input_ids": self.words[row], "labels": self.labels[row]}


torch.manual_seed(os.getpid() if goes_on else 0)
config = GPT2Config(
    vocab_size=17, n_positions=64, n_embd=16, n_layer=1, n_head=2, num_labels=10, pad_token_id=16, bos_token_id=0, eos_token_id=0
)  # fmt: skip
arguments = TrainingArguments(
    output_dir=run + "-output", num_train_epochs=3, per_device_train_batch_size=16, gradient_accumulation_steps=accumulation,
    learning_rate=1e-2, warmup_steps=4, logging_steps=2, eval_strategy="epoch", save_strategy="no", report_to=[], use_cpu=True,
    disable_tqdm=True, restore_callback_states_from_checkpoint=True, dataloader_pin_memory=False,
)  # fmt: skip
manager = holdfast.CheckpointManager(run, max_to_keep=2, save_interval_steps=4, best=("eval_loss", "min"))
if "--end-by-signal" in sys.argv:
    manager.save_on_signal(signal.SIGTERM)
callback = HoldfastCallback(manager)
model = GPT2ForSequenceClassification(config)
trainer = Trainer(model, arguments, train_dataset=Digits(slice(160)), eval_dataset=Digits(slice(-32, None)),
                  callbacks=[Counting(), callback])  # fmt: skip
trainer.remove_callback(PrinterCallback)
trainer.train(resume_from_checkpoint=callback.resume_point(trainer))

optimizer = trainer.optimizer.optimizer
moments = {
    f"{name} {slot}": value.numpy()
    for name, parameter in model.named_parameters()
    for slot, value in optimizer.state[parameter].items()
}
timed = ("runtime", "per_second", "total_flos", "train_loss")
history = [
    {name: value for name, value in entry.items() if not any(word in name for word in timed)}
    for entry in trainer.state.log_history
]
counted = next(one for one in trainer.callback_handler.callbacks if isinstance(one, Counting))
print("steps:", trainer.state.global_step, trainer.state.epoch, counted.steps)
print("weights:", digest({name: t.numpy() for name, t in model.state_dict().items()}))
print("moments:", digest(moments))
print("rate:", trainer.lr_scheduler.get_last_lr(), optimizer.param_groups[0]["lr"])
print("random:", np.random.random(), torch.rand(2).tolist())
print("history:", json.dumps(history, sort_keys=True))
