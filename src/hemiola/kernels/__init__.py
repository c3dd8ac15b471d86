"""Compiled loops of threads that share memory."""
