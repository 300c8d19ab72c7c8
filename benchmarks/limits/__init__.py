"""Against limits: kills, a million judgements, what orchestration costs, how fast a constitution is checked."""
