"""Usage and cost of Forge apps: prices, months and forecasts, metrics."""
