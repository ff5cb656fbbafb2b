-- Run once, by the image, as the superuser in a new database: the roles of the
-- two programs, with the least that they need. docker-compose.yml hands the
-- passwords over in the environment; psql reads and quotes them.

\getenv backend_password BACKEND_DB_PASSWORD
\getenv proxy_password PROXY_DB_PASSWORD

-- The data service migrates, and so owns its tables.
CREATE ROLE backend LOGIN PASSWORD :'backend_password';
GRANT CREATE ON SCHEMA public TO backend;

-- The proxy follows the change stream. It reads no table and writes none.
CREATE ROLE walcache LOGIN REPLICATION PASSWORD :'proxy_password';

-- The proxy tells who holds up the making of its slot; the service, whether a
-- process of another release is still connected. Both ask pg_stat_activity, which
-- hides other roles' sessions from those without this.
GRANT pg_read_all_stats TO backend, walcache;

-- All tables take a superuser, which neither of the two is.
CREATE PUBLICATION walcache FOR ALL TABLES WITH (publish = 'insert, truncate');
CREATE PUBLICATION walcache_updates WITH (publish = 'update, delete');
