-- name: ListProperties :many
-- A price is read as text: PostgreSQL prints a numeric(10,2) exactly and always
-- with two decimals, and that string is what clients get. The driver's type for
-- numeric may forget the scale, a float would forget the cents.
SELECT id, title, description, price::text AS price, location, created_at
FROM properties
ORDER BY created_at DESC, id DESC;

-- name: ListPropertiesByLocation :many
SELECT id, title, description, price::text AS price, location, created_at
FROM properties
WHERE location = $1
ORDER BY created_at DESC, id DESC;

-- name: GetProperty :one
SELECT id, title, description, price::text AS price, location, created_at
FROM properties
WHERE id = $1;

-- name: CountProperties :one
SELECT count(*)
FROM properties;

-- name: CreatePropertyUnlessTitled :execrows
-- The time is that of the statement and not of its transaction, so that rows
-- created together keep their order.
INSERT INTO properties (title, description, price, location, created_at)
SELECT @title::text, @description::text, (@price::text)::numeric, @location::text, clock_timestamp()
WHERE NOT EXISTS (SELECT FROM properties WHERE title = @title);

-- name: CopyProperties :copyfrom
INSERT INTO properties (title, description, price, location, created_at)
VALUES ($1, $2, $3, $4, $5);
