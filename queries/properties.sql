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

-- name: SearchProperties :many
-- All that are not excluded: an empty search or bound excludes nothing, and take
-- and skip are rows. A sort that is none of these is newest first, which also
-- decides between equals.
SELECT id, title, description, price::text AS price, location, created_at
FROM properties
WHERE (strpos(lower(title), lower(@search::text)) > 0
    OR strpos(lower(description), lower(@search)) > 0
    OR strpos(lower(location), lower(@search)) > 0)
  AND price >= coalesce(nullif(@min_price::text, '')::numeric, 0)
  AND price <= coalesce(nullif(@max_price::text, '')::numeric, 99999999.99)
ORDER BY
    CASE WHEN @sort::text = 'price' THEN price END,
    CASE WHEN @sort = '-price' THEN price END DESC,
    CASE WHEN @sort = 'title' THEN lower(title) END,
    CASE WHEN @sort = '-title' THEN lower(title) END DESC,
    CASE WHEN @sort = 'location' THEN lower(location) END,
    CASE WHEN @sort = '-location' THEN lower(location) END DESC,
    CASE WHEN @sort = 'created_at' THEN created_at END,
    CASE WHEN @sort = 'created_at' THEN id END,
    created_at DESC, id DESC
LIMIT @take::bigint OFFSET @skip::bigint;

-- name: SearchPropertiesByLocation :many
-- SearchProperties, in one location.
SELECT id, title, description, price::text AS price, location, created_at
FROM properties
WHERE location = @location
  AND (strpos(lower(title), lower(@search::text)) > 0
    OR strpos(lower(description), lower(@search)) > 0
    OR strpos(lower(location), lower(@search)) > 0)
  AND price >= coalesce(nullif(@min_price::text, '')::numeric, 0)
  AND price <= coalesce(nullif(@max_price::text, '')::numeric, 99999999.99)
ORDER BY
    CASE WHEN @sort::text = 'price' THEN price END,
    CASE WHEN @sort = '-price' THEN price END DESC,
    CASE WHEN @sort = 'title' THEN lower(title) END,
    CASE WHEN @sort = '-title' THEN lower(title) END DESC,
    CASE WHEN @sort = 'location' THEN lower(location) END,
    CASE WHEN @sort = '-location' THEN lower(location) END DESC,
    CASE WHEN @sort = 'created_at' THEN created_at END,
    CASE WHEN @sort = 'created_at' THEN id END,
    created_at DESC, id DESC
LIMIT @take::bigint OFFSET @skip::bigint;

-- name: CountSearchedProperties :one
SELECT count(*)
FROM properties
WHERE (strpos(lower(title), lower(@search::text)) > 0
    OR strpos(lower(description), lower(@search)) > 0
    OR strpos(lower(location), lower(@search)) > 0)
  AND price >= coalesce(nullif(@min_price::text, '')::numeric, 0)
  AND price <= coalesce(nullif(@max_price::text, '')::numeric, 99999999.99);

-- name: CountSearchedPropertiesByLocation :one
SELECT count(*)
FROM properties
WHERE location = @location
  AND (strpos(lower(title), lower(@search::text)) > 0
    OR strpos(lower(description), lower(@search)) > 0
    OR strpos(lower(location), lower(@search)) > 0)
  AND price >= coalesce(nullif(@min_price::text, '')::numeric, 0)
  AND price <= coalesce(nullif(@max_price::text, '')::numeric, 99999999.99);

-- name: ListLocations :many
SELECT DISTINCT location
FROM properties
ORDER BY location;

-- name: LockProperty :one
-- What is about to be changed, which nobody else changes until then.
SELECT id, title, description, price::text AS price, location, created_at
FROM properties
WHERE id = $1
FOR UPDATE;

-- name: CreateProperty :one
-- The time is that of the statement, as in CreatePropertyUnlessTitled.
INSERT INTO properties (title, description, price, location, created_at)
VALUES (@title, @description, (@price::text)::numeric, @location, clock_timestamp())
RETURNING id, title, description, price::text AS price, location, created_at;

-- name: UpdateProperty :one
UPDATE properties
SET title = @title, description = @description, price = (@price::text)::numeric, location = @location
WHERE id = @id
RETURNING id, title, description, price::text AS price, location, created_at;

-- name: DeleteProperty :execrows
DELETE FROM properties
WHERE id = $1;

-- name: CreatePropertyUnlessTitled :execrows
-- The time is that of the statement and not of its transaction, so that rows
-- created together keep their order.
INSERT INTO properties (title, description, price, location, created_at)
SELECT @title::text, @description::text, (@price::text)::numeric, @location::text, clock_timestamp()
WHERE NOT EXISTS (SELECT FROM properties WHERE title = @title);

-- name: CopyProperties :copyfrom
INSERT INTO properties (title, description, price, location, created_at)
VALUES ($1, $2, $3, $4, $5);
