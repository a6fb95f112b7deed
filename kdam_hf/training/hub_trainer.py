"""`push_to_hub`: what `kdam publish` uploads, during the training and at its end.

Unusual here: a push is one commit of model, card, code and log, never of optimizer state or pickles, so the strategies
`checkpoint` and `all_checkpoints` do not exist. Training waits for the upload, since the checkpoint that is sent may be
deleted by the next one; an upload that fails during the training is reported and does not end it.
"""

import warnings
from typing import Any

from kdam_hf.errors import HubError, KdamValueError
from kdam_hf.hub import make_publication, open_repository, upload
from kdam_hf.training.resumable_trainer import ResumableTrainer


class PublishingTrainer(ResumableTrainer):
    """Replaces how `Trainer` pushes; see `KdamTrainingArguments` for the keys."""

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Create the repository, before the first step: a wrong name or token must not wait for the last one.

        Raises:
            HubError: refused or unreachable.
        """
        self.push_in_progress = None
        self.hub_model_id = self.args.hub_model_id
        if self.is_world_process_zero():
            private = self.args.hub_private_repo if private is None else private
            open_repository(self.args.hub_model_id or "", bool(private), token or self.args.hub_token)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Publish the model of a sealed checkpoint, if asked for, with a card that says how far the training is."""
        if not args.push_to_hub or args.hub_strategy == "end" or not state.is_world_process_zero:
            return
        folder, step = f"{args.output_dir}/checkpoint-{state.global_step}", state.global_step
        progress = f"Still in training: step {step} of {state.max_steps}, not scored yet."
        try:
            self._publish(folder, f"Training in progress, step {step}", progress, args.hub_token)
        except HubError as error:
            warnings.warn(f"{error} Training goes on; the next checkpoint is pushed again.", stacklevel=2)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        **kwargs: Any,
    ) -> str | None:
        """Publish what is in output_dir, with the scores of results.json where `execute` has left them; the URL of the commit.

        None on processes other than the first. `token` is by default `hub_token`, or that of this machine; it always blocks.

        Raises:
            HubError: refused, unreachable or interrupted; the model is complete on disk.
            KdamValueError: a revision, or an argument that is not known.
        """
        if given := kwargs | ({} if revision is None else {"revision": revision}):
            raise KdamValueError(
                f"push_to_hub was given {given}; it pushes to the main branch. Name a state by a tag: kdam publish --revision."
            )
        if not self.is_world_process_zero():
            return None
        if self.hub_model_id is None:
            self.init_hf_repo(token)
        folder = str(self.args.output_dir)
        try:
            return self._publish(folder, commit_message or "End of training", "", token or self.args.hub_token)
        except HubError as error:
            raise HubError(
                f"{error} The model is complete in {folder}; publish it with kdam publish --model {folder} "
                f"--repo_id {self.args.hub_model_id}."
            ) from error

    def _publish(self, folder: str, message: str, progress: str, token: str | None) -> str:
        ready = make_publication(folder, str(self.hub_model_id), allow_no_results=True, progress=progress)
        return upload(ready.repo_id, ready.files, message, token=token)
