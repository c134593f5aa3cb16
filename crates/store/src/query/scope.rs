//! Names: which column an identifier means, from the innermost SELECT outwards.

use sqlparser::ast::{Ident, ObjectName, ObjectNamePart};

use super::error::{QueryError, Result};
use super::types::Type;

/// A column that can be named.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    /// What SQLite reads it as.
    pub(super) sql: String,
    pub(super) ty: Type,
    pub(super) nullable: bool,
    /// A secret of this table, which no query reads.
    pub(super) secret: Option<String>,
}

/// A table, subquery or function in a FROM clause.
#[derive(Debug, Clone)]
pub(super) struct Relation {
    pub(super) alias: String,
    /// The table's own name, where `noetl.event.status` may still be written.
    pub(super) table: Option<String>,
    pub(super) columns: Vec<Column>,
    /// The columns that identify a row: grouping by them makes every column of the relation single.
    pub(super) key: Vec<String>,
    /// A function of one column, whose alias alone means that column.
    pub(super) scalar: bool,
}

/// What one SELECT can name, and what is known about its grouping.
#[derive(Debug, Default)]
pub(super) struct Scope {
    pub(super) id: usize,
    pub(super) relations: Vec<Relation>,
    /// The columns of `*`, in order; what an unqualified name is looked up in.
    pub(super) visible: Vec<Column>,
    pub(super) windows: Vec<String>,
    /// The translated GROUP BY expressions.
    pub(super) group_keys: Vec<String>,
    pub(super) aggregated: bool,
    pub(super) place: Place,
    /// Functions of the select list that make rows, to be joined to the FROM clause.
    pub(super) row_makers: Vec<String>,
}

/// The clause being translated, which decides what may stand in it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    #[default]
    Rows,
    /// The select list itself: aggregates, window functions and row-making functions may stand here.
    Projection,
    /// HAVING and ORDER BY: aggregates may stand here.
    Groups,
}

impl Scope {
    /// Adds a relation whose columns all become visible.
    pub(super) fn add(&mut self, relation: Relation) -> Result<()> {
        self.check_alias(&relation.alias)?;
        self.visible.extend(relation.columns.iter().cloned());
        self.relations.push(relation);
        Ok(())
    }

    fn check_alias(&self, alias: &str) -> Result<()> {
        if self.relations.iter().any(|other| other.alias == alias) {
            return Err(QueryError::invalid(format!("table name {alias:?} is given more than once")));
        }
        Ok(())
    }

    /// Takes over what the right side of a join brings.
    pub(super) fn absorb(&mut self, right: Scope) -> Result<()> {
        for relation in &right.relations {
            self.check_alias(&relation.alias)?;
        }
        self.relations.extend(right.relations);
        self.visible.extend(right.visible);
        Ok(())
    }

    /// Says that an outer join may leave the columns of this side empty.
    pub(super) fn make_nullable(&mut self) {
        let columns = self.relations.iter_mut().flat_map(|relation| &mut relation.columns).chain(&mut self.visible);
        for column in columns {
            column.nullable = true;
        }
    }

    pub(super) fn relation(&self, alias: &str) -> Option<&Relation> {
        self.relations.iter().find(|relation| relation.alias == alias)
    }

    /// Looks an unqualified name up; two columns of the name are an error.
    pub(super) fn visible(&self, name: &str) -> Result<Option<&Column>> {
        let mut found = self.visible.iter().filter(|column| column.name == name);
        let first = found.next();
        if first.is_some() && found.next().is_some() {
            return Err(QueryError::invalid(format!("column reference {name:?} is ambiguous: name its table")));
        }
        Ok(first)
    }

    /// Tells whether the GROUP BY expressions identify the relation that a column belongs to.
    pub(super) fn grouped_by_key_of(&self, sql: &str) -> bool {
        let owner = self.relations.iter().find(|relation| relation.columns.iter().any(|column| column.sql == sql));
        owner.is_some_and(|relation| {
            let in_keys = |name: &String| {
                let column = relation.columns.iter().find(|column| column.name == *name);
                column.is_some_and(|column| self.group_keys.contains(&column.sql))
            };
            !relation.key.is_empty() && relation.key.iter().all(in_keys)
        })
    }
}

/// Returns a name as PostgreSQL folds it: in lower case unless it is quoted.
pub(super) fn fold(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// Returns the parts of a dotted name, folded.
pub(super) fn fold_name(name: &ObjectName) -> Result<Vec<String>> {
    name.0
        .iter()
        .map(|part| match part {
            ObjectNamePart::Identifier(ident) => Ok(fold(ident)),
            ObjectNamePart::Function(_) => Err(QueryError::unsupported(format!("name {name}"))),
        })
        .collect()
}

/// Writes a name as SQLite reads it, whatever letters it has.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Writes a string literal.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
