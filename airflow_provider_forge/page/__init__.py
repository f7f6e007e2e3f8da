"""The page *Forge* in Airflow's UI, for Airflow 3.1 and later."""
