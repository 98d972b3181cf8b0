"""`carrel doctor`: what an installation lacks, and how to get it. Changes nothing that stays."""
