package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// publication is a row of pg_publication.
type publication struct {
	name                           string
	exists, usable, owned, schemas bool // schemas: it carries whole schemas
}

// publications looks whether the two are there as the listener would make them,
// or may be made by it.
func (p *postgres) publications(ctx context.Context) error {
	inserts, err := p.publication(ctx, p.config.Listener.Publication, "puballtables AND pubinsert AND pubtruncate")
	if err != nil {
		return err
	}
	updates, err := p.publication(ctx, p.updates(), "NOT puballtables AND pubupdate AND pubdelete")
	if err != nil {
		return err
	}
	for _, pub := range []publication{inserts, updates} {
		name := pub.name
		if pub.exists && (!pub.usable || pub.schemas) {
			p.lists = true // or rather, nobody lists anything in it
			p.add("publications", Finding{Status: Error, What: fmt.Sprintf("%q exists and does not carry what is needed", name), Why: "the stream carries what its publications say",
				Fix: "name another one with --publication, or, if it is nobody's, let an owner run: DROP PUBLICATION " + quote(name)})
			return nil
		}
	}
	sql := p.create(inserts, updates)
	if len(sql) > 0 {
		p.add("publications", Finding{Status: Error, What: p.lacking(inserts, updates), Why: "the stream carries what its publications say, and the listener cannot change that itself",
			Fix: "let an owner run the statements (all tables take a superuser, or what your provider has for one)", SQL: sql})
		return nil
	}
	made := "are there"
	if !inserts.exists || !updates.exists {
		made = "are made by the listener"
	}
	f := Finding{Status: OK, What: fmt.Sprintf("%q and %q %s", p.config.Listener.Publication, p.updates(), made)}
	if !p.super && !updates.owned {
		f.Why, f.Fix = "the role may not list tables", "after each migration that makes a table, let an owner run what proxy doctor --sql says"
	}
	p.add("publications", f)
	return nil
}

// updates is the publication that lists tables.
func (p *postgres) updates() string { return p.config.Listener.Publication + "_updates" }

func (p *postgres) publication(ctx context.Context, name, condition string) (pub publication, err error) {
	pub.name = name
	err = p.db.QueryRow(ctx, `
SELECT true, NOT pubviaroot AND `+condition+`, pg_has_role(pubowner, 'USAGE') FROM pg_publication WHERE pubname = $1`, name).
		Scan(&pub.exists, &pub.usable, &pub.owned)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && p.version < 150000 {
		return pub, nil
	}
	if err == nil {
		err = p.db.QueryRow(ctx, `
SELECT EXISTS (SELECT FROM pg_publication_namespace n JOIN pg_publication p ON p.oid = n.pnpubid WHERE p.pubname = $1)`, name).Scan(&pub.schemas)
	}
	return pub, err
}

// create returns what an owner has to run because the role may not, or because
// the listener would not: to make the publications, and to list the tables that
// have an identity.
func (p *postgres) create(inserts, updates publication) (sql []string) {
	able := updates.owned || !updates.exists && p.creates
	p.lists = able && !slices.ContainsFunc(p.tables, func(t table) bool { return t.wanted() && !t.owned })
	if !inserts.exists && !p.super {
		sql = append(sql, "CREATE PUBLICATION "+quote(p.config.Listener.Publication)+" FOR ALL TABLES WITH (publish = 'insert, truncate');")
	}
	if !p.lists && !updates.exists {
		sql = append(sql, "CREATE PUBLICATION "+quote(p.updates())+" WITH (publish = 'update, delete');")
	}
	for _, t := range p.tables {
		if t.mislisted() {
			sql = append(sql, p.alter("DROP", t))
		}
		if t.identity && !t.parent && (t.mislisted() || t.wanted() && !p.lists) {
			sql = append(sql, p.alter("ADD", t))
		}
	}
	return sql
}

// alter puts a table on the list, or takes it off: by itself, and not with those
// that inherit from it.
func (p *postgres) alter(verb string, t table) string {
	return "ALTER PUBLICATION " + quote(p.updates()) + " " + verb + " TABLE ONLY " + t.sql + ";"
}

// mislisted reports that what the publication says of the table has to go: a
// partitioned table publishes partitions that have no identity, and a filter
// holds changes back.
func (t table) mislisted() bool { return t.listed && (t.parent || t.filtered) }

// wanted reports that the publication lacks the table, or will once it has an
// identity.
func (t table) wanted() bool {
	return !t.ignored && !t.parent && (!t.listed || t.filtered) && (t.identity || t.key || t.index != "" || t.full)
}

// lacking says in words what create makes up for.
func (p *postgres) lacking(inserts, updates publication) string {
	var missing, unlisted, wrong []string
	if !inserts.exists {
		missing = append(missing, quote(p.config.Listener.Publication))
	}
	if !updates.exists {
		missing = append(missing, quote(p.updates()))
	}
	for _, t := range p.tables {
		switch {
		case t.mislisted():
			wrong = append(wrong, t.name)
		case t.wanted() && t.identity:
			unlisted = append(unlisted, t.name)
		}
	}
	switch {
	case len(missing) > 0:
		return "missing: " + names(missing)
	case len(wrong) > 0:
		return "listed as partitioned table, or with a row filter or column list: " + names(wrong)
	}
	return "not listed for updates: " + names(unlisted)
}
