package queryset

import (
	"encoding/json"
	"fmt"

	"github.com/wasilibs/go-pgquery/parser"
)

// parsed is what the check of tags needs to know of a parsed query.
type parsed struct {
	isSelect   bool
	locks      bool     // the rows that it reads
	tables     []string // each as often as it is read
	conditions []condition
	functions  []string
	hasWith    bool // common table expressions
	hasClock   bool // CURRENT_DATE, CURRENT_USER and their like
}

// condition is `column = $param`, one that every row of the answer fulfils.
type condition struct {
	table, column string
	param         int
}

// node is a part of a parse tree, as PostgreSQL names it: its kind, or a field.
type node = map[string]any

// parse parses one statement with PostgreSQL's own parser.
func parse(sql string) (*parsed, error) {
	text, err := parser.ParseToJSON(sql)
	if err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	var tree struct{ Stmts []struct{ Stmt node } }
	if err := json.Unmarshal([]byte(text), &tree); err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	if len(tree.Stmts) != 1 {
		return nil, fmt.Errorf("%d statements instead of one", len(tree.Stmts))
	}
	s := new(parsed)
	s.walk(tree.Stmts[0].Stmt)
	if sel, ok := tree.Stmts[0].Stmt["SelectStmt"].(node); ok {
		s.isSelect = true
		_, s.locks = sel["lockingClause"]
		names := make(map[string]string)
		aliases(sel["fromClause"], names)
		s.require(sel["whereClause"], names)
	}
	return s, nil
}

// walk notes what matters anywhere in the tree, subqueries included.
func (s *parsed) walk(v any) {
	switch v := v.(type) {
	case []any:
		for _, child := range v {
			s.walk(child)
		}
	case node:
		if name, ok := v["relname"].(string); ok {
			s.tables = append(s.tables, qualified(v, name))
		}
		if call, ok := v["FuncCall"].(node); ok {
			name := texts(call["funcname"])
			s.functions = append(s.functions, name[len(name)-1])
		}
		_, clock := v["SQLValueFunction"]
		_, with := v["ctename"]
		s.hasClock, s.hasWith = s.hasClock || clock, s.hasWith || with
		for _, child := range v {
			s.walk(child)
		}
	}
}

// aliases notes under which name the FROM clause knows each table. A table
// that is alone is also known by no name.
func aliases(from any, names map[string]string) {
	switch v := from.(type) {
	case []any:
		for _, child := range v {
			aliases(child, names)
		}
	case node:
		if name, ok := v["relname"].(string); ok {
			table := qualified(v, name)
			if alias, ok := v["alias"].(node); ok {
				name = alias["aliasname"].(string)
			}
			if names[name] = table; len(names) == 1 {
				names[""] = table
			} else {
				delete(names, "")
			}
			return
		}
		for _, field := range []string{"RangeVar", "JoinExpr", "larg", "rarg"} {
			aliases(v[field], names)
		}
	}
}

// require notes the conditions that hold together with all others.
func (s *parsed) require(where any, names map[string]string) {
	n, _ := where.(node)
	if and, ok := n["BoolExpr"].(node); ok && and["boolop"] == "AND_EXPR" {
		for _, arg := range and["args"].([]any) {
			s.require(arg, names)
		}
	}
	equal, ok := n["A_Expr"].(node)
	if !ok || equal["kind"] != "AEXPR_OP" || texts(equal["name"])[0] != "=" {
		return
	}
	left, _ := equal["lexpr"].(node)
	right, _ := equal["rexpr"].(node)
	for _, sides := range [][2]node{{left, right}, {right, left}} {
		column, isColumn := sides[0]["ColumnRef"].(node)
		param, isParam := sides[1]["ParamRef"].(node)
		if !isColumn || !isParam {
			continue
		}
		name := append([]string{""}, texts(column["fields"])...)
		if table, ok := names[name[len(name)-2]]; ok {
			number, _ := param["number"].(float64)
			s.conditions = append(s.conditions, condition{table, name[len(name)-1], int(number)})
		}
	}
}

// qualified is a table's name as the search path finds it.
func qualified(rangeVar node, name string) string {
	if schema, ok := rangeVar["schemaname"].(string); ok && schema != "public" {
		return schema + "." + name
	}
	return name
}

// texts returns the strings of a list, such as the parts of a name.
func texts(list any) (parts []string) {
	nodes, _ := list.([]any)
	for _, n := range nodes {
		s, _ := n.(node)["String"].(node)
		part, _ := s["sval"].(string)
		parts = append(parts, part)
	}
	return parts
}
