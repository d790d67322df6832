"""What ends a run on purpose, each with one line for the user."""

OUT_OF_TIME = 75  # exit status of a run that stopped because of --max_minutes (EX_TEMPFAIL: try again)


class CheckpointError(RuntimeError):
  """A checkpoint that cannot be written, found or used; its text is one line for the user."""


class Stopped(Exception):
  """The run was asked to stop and has saved a checkpoint."""

  def __init__(self, status: int, text: str):
    """Stops with an exit status and one line that says why."""
    super().__init__(text)
    self.status = status


def first_line(e: BaseException) -> str:
  """The beginning of what an error says."""
  lines = str(e).strip().splitlines()
  return f'{type(e).__name__}: {lines[0][:200]}' if lines else type(e).__name__
