package doctor

import "fmt"

// identities are about the tables whose updates no stream can carry as they are.
func (p *postgres) identities() {
	var without, refusing []string
	var sql []string
	for _, t := range p.tables {
		switch {
		case t.identity || t.parent || t.ignored && !t.published:
			continue
		case t.published:
			refusing = append(refusing, t.name)
		default:
			without = append(without, t.name)
		}
		sql = append(sql, p.remedy(t)...)
	}
	f := Finding{Status: Error, What: "without: " + names(without),
		Why: "their updates cannot be seen, so answers that may depend on them are not stored",
		Fix: "let their owner run the statements, give them primary keys, or leave them out with --ignore-tables", SQL: sql}
	if len(refusing) > 0 {
		f.What = "published for updates, and without: " + names(refusing)
		if len(without) > 0 {
			f.What += "; not published, and without: " + names(without)
		}
		f.Why, f.Fix = "PostgreSQL refuses the application's updates and deletes of a table that is published without", "let an owner run the statements at once"
	}
	if len(refusing)+len(without) == 0 {
		f = Finding{Status: OK, What: "every table that is not ignored has one"}
	}
	p.add("replica_identity", f)
}

// remedy gives a table an identity, the cheapest that it can have, and lists it
// with that if nobody else would. Both or nothing: a table that is listed and
// has no identity cannot be updated.
func (p *postgres) remedy(t table) []string {
	inherits := ""
	if t.inherits {
		inherits = "; it inherits columns and no key"
	}
	alter := func(identity string) string {
		sql := "ALTER TABLE " + t.sql + " REPLICA IDENTITY " + identity + ";"
		if t.wanted() && !p.lists {
			sql += " " + p.alter("ADD", t)
		}
		return sql
	}
	switch {
	case t.key:
		return []string{alter("DEFAULT")}
	case t.index != "":
		return []string{"-- " + t.name + ": by an index, which adds nothing to the WAL of updates that leave its columns alone" + inherits, alter("USING INDEX " + t.index)}
	case t.full:
		bytes := ""
		if t.rowBytes > 0 {
			bytes = fmt.Sprintf(" (about %s)", size(t.rowBytes))
		}
		return []string{"-- " + t.name + ": FULL logs the whole old row" + bytes + " with each update and delete; a primary key would be cheaper" + inherits, alter("FULL")}
	case t.listed:
		return []string{p.alter("DROP", t)}
	}
	return []string{"-- " + t.name + ": nothing but a primary key without generated columns helps"}
}
