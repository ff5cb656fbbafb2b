-- name: CreateUser :one
INSERT INTO users (name, password)
VALUES (@name, @password)
RETURNING id;

-- name: GetUser :one
SELECT id, name, password, active, created_at, last_login_at
FROM users
WHERE id = $1;

-- name: GetUserByName :one
SELECT id, name, password, active, created_at, last_login_at
FROM users
WHERE lower(name) = lower(@name);

-- name: SetPassword :execrows
UPDATE users
SET password = @password
WHERE id = @id;

-- name: NoteLogin :exec
UPDATE users
SET last_login_at = now()
WHERE id = $1;

-- name: UpgradePassword :execrows
-- The same password, stored another way, unless it was changed meanwhile.
UPDATE users
SET password = @password
WHERE id = @id AND password = @was;
