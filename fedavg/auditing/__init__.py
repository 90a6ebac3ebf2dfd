"""Attacks on one's own run, through the pipeline that the run itself uses."""

from __future__ import annotations

from fedavg.auditing.audit import Audit, audit
from fedavg.auditing.canaries import one_run, one_shot
from fedavg.auditing.detectors import clip_applied, cohort_fits, fresh_noise, masks_cancel, noise_in_full
from fedavg.auditing.findings import Finding
from fedavg.auditing.recording import Recorder, Transcript, read_transcript
from fedavg.auditing.transcript import PROVES_NOT, TranscriptAudit, audit_transcript

__all__ = [
    "PROVES_NOT",
    "Audit",
    "Finding",
    "Recorder",
    "Transcript",
    "TranscriptAudit",
    "audit",
    "audit_transcript",
    "clip_applied",
    "cohort_fits",
    "fresh_noise",
    "masks_cancel",
    "noise_in_full",
    "one_run",
    "one_shot",
    "read_transcript",
]
