"""Measurements: against peers, against limits, and what they share; results/ holds one JSON each."""
