-- +goose Up
SELECT pg_logical_emit_message(true, 'walcache', 'floor users
floor changes
floor releases');

-- Who may edit in the panel.
CREATE TABLE users (
    id            bigint       GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name          varchar(150) NOT NULL CHECK (name <> ''),
    password      text         NOT NULL, -- argon2id, in PHC string format
    active        boolean      NOT NULL DEFAULT true,
    created_at    timestamptz  NOT NULL DEFAULT now(),
    last_login_at timestamptz
);

-- Names that differ in case alone would be two people to the database and one
-- to everybody else.
CREATE UNIQUE INDEX users_name ON users (lower(name));

-- What was done to properties, by whom. It outlives both, so nothing refers to
-- them.
CREATE TABLE changes (
    id          bigint       GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    property_id bigint       NOT NULL,
    at          timestamptz  NOT NULL DEFAULT now(),
    who         varchar(150) NOT NULL,
    action      varchar(10)  NOT NULL CHECK (action IN ('added', 'changed', 'deleted')),
    title       varchar(255) NOT NULL, -- of the property, after it
    fields      jsonb        NOT NULL  -- {"price": ["1.00", "2.00"]}: what was, and what is since
);

CREATE INDEX changes_property ON changes (property_id, id);

-- The releases of this service that have answered requests. What an answer looks
-- like depends on the newest, as on any row.
CREATE TABLE releases (
    name       varchar(255) PRIMARY KEY,
    started_at timestamptz  NOT NULL
);

-- +goose Down
SELECT pg_logical_emit_message(true, 'walcache', 'floor users
floor changes
floor releases');

DROP TABLE users, changes, releases;
