"""What Atlassian's GraphQL gateway speaks: query and answer, windows, rate limit. No Airflow here."""
