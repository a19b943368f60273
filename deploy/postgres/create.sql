-- The database of both services and the role that owns it. It may run again: then it only sets the password.
--
--   set -a; . /etc/lite/secrets/database.env; set +a      (written by password.sh)
--   psql -X -f create.sql                                 (as a superuser)
\set ON_ERROR_STOP on
\getenv password LITE_DATABASE_PASSWORD
\if :{?password}
\else
    DO $$ BEGIN RAISE EXCEPTION 'LITE_DATABASE_PASSWORD is not in the environment; password.sh writes it'; END $$;
\endif

-- The statement that holds the password is not for the server's log, not even when it fails.
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
SET log_min_duration_statement = -1;
SET password_encryption = 'scram-sha-256';

SELECT 'CREATE ROLE lite' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'lite') \gexec
ALTER ROLE lite LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION PASSWORD :'password';

SELECT $$CREATE DATABASE lite OWNER lite ENCODING 'UTF8' TEMPLATE template0$$
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'lite') \gexec
REVOKE ALL ON DATABASE lite FROM PUBLIC;
