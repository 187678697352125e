"""``u2edge doctor``: what this machine is, whether it can do the job, and what to change. One file per area."""
