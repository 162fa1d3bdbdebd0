//! A simulated Microsoft 365 tenant: Graph over HTTPS and a journaling connector over SMTP.
