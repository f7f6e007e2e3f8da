"""The client of Atlassian's GraphQL gateway, with the rate limit. No Airflow here."""
