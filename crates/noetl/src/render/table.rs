//! Tables: a box around query results, plain columns for lists.

use comfy_table::{Cell, ContentArrangement, ContentLineStyle, LineStyle, Table, TableStyle};
use serde_json::Value;

use super::clean;

/// A thin box without lines between rows.
const BOX: TableStyle = TableStyle::new()
    .top_border(LineStyle::new('┌', '─', '┬', '┐'))
    .header_lines(ContentLineStyle::new('│', '│', '│'))
    .header_separator(LineStyle::new('├', '─', '┼', '┤'))
    .content_lines(ContentLineStyle::new('│', '│', '│'))
    .bottom_border(LineStyle::new('└', '─', '┴', '┘'));

/// Rows with their column names, from any of the shapes that servers answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// Names, in order.
    pub columns: Vec<String>,
    /// Values, row by row; every row is as long as `columns`.
    pub rows: Vec<Vec<Value>>,
}

impl Rows {
    /// Reads `result` rows as objects (as servers answer) or arrays (as the published table mode wanted them).
    ///
    /// `None`: not a list of rows. Column names come from `columns` when given, else from the objects' keys in the
    /// order they first appear, else they are `column_1`, `column_2`, ….
    pub fn read(result: &Value, columns: Option<&Value>) -> Option<Rows> {
        let items = result.as_array()?;
        let mut names: Vec<String> = columns
            .and_then(Value::as_array)
            .map(|names| names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect())
            .unwrap_or_default();
        let given = !names.is_empty();
        for item in items {
            match item {
                Value::Object(map) if !given => {
                    for key in map.keys() {
                        if !names.contains(key) {
                            names.push(key.clone());
                        }
                    }
                }
                Value::Object(_) => {}
                Value::Array(values) => {
                    while names.len() < values.len() {
                        names.push(format!("column_{}", names.len() + 1));
                    }
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
            }
        }
        let rows = items
            .iter()
            .map(|item| match item {
                Value::Object(map) => names.iter().map(|name| map.get(name).cloned().unwrap_or(Value::Null)).collect(),
                Value::Array(values) => {
                    (0..names.len()).map(|place| values.get(place).cloned().unwrap_or(Value::Null)).collect()
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
            })
            .collect();
        Some(Rows { columns: names, rows })
    }
}

/// Returns the rows in a box with `(n rows)` below; no box around nothing.
pub fn boxed(rows: &Rows) -> String {
    let count = format!("({} rows)\n", rows.rows.len());
    if rows.rows.is_empty() || rows.columns.is_empty() {
        return count;
    }
    let mut table = Table::new();
    table.load_style(BOX).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(rows.columns.iter().map(|name| Cell::new(clean(name))));
    for row in &rows.rows {
        table.add_row(row.iter().map(|value| Cell::new(clean(&cell(value)))));
    }
    format!("{table}\n{count}")
}

/// Returns the text of one value: `NULL`, text as it is, documents on one line.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// Returns left-aligned columns, two spaces apart, with a heading; nothing after the last column.
///
/// Cells may hold colour codes; their width does not count.
pub fn columns(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut width: Vec<usize> = heading.iter().map(|name| visible_width(name)).collect();
    for row in rows {
        for (place, text) in row.iter().enumerate() {
            width[place] = width[place].max(visible_width(text));
        }
    }
    let line = |cells: Vec<&str>| {
        let mut line = String::new();
        for (place, text) in cells.iter().enumerate() {
            line.push_str(text);
            if place + 1 < cells.len() {
                line.push_str(&" ".repeat(width[place] - visible_width(text) + 2));
            }
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    };
    let bold = super::BOLD;
    let mut out = format!("{bold}{}{bold:#}\n", line(heading.to_vec()).trim_end());
    for row in rows {
        out.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    out
}

fn visible_width(text: &str) -> usize {
    anstream::adapter::strip_str(text).to_string().chars().count()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn object_rows_become_a_box_with_their_real_names() {
        let result = json!([
            {"execution_id": 1, "created_at": "2026-01-20", "reason": null},
            {"execution_id": 22, "created_at": "x", "reason": {"a": [1]}},
        ]);
        assert_eq!(
            boxed(&Rows::read(&result, None).unwrap()),
            "\
┌──────────────┬────────────┬───────────┐
│ execution_id │ created_at │ reason    │
├──────────────┼────────────┼───────────┤
│ 1            │ 2026-01-20 │ NULL      │
│ 22           │ x          │ {\"a\":[1]} │
└──────────────┴────────────┴───────────┘
(2 rows)
"
        );
    }

    #[test]
    fn array_rows_and_given_names_work_too() {
        let rows = Rows::read(&json!([[1, "a"], [2]]), None).unwrap();
        assert_eq!(rows.columns, ["column_1", "column_2"]);
        assert_eq!(rows.rows[1], [json!(2), Value::Null]);
        let rows = Rows::read(&json!([{"b": 1, "a": 2}]), Some(&json!(["a", "b"]))).unwrap();
        assert_eq!((rows.columns, rows.rows), (vec!["a".into(), "b".into()], vec![vec![json!(2), json!(1)]]));
    }

    #[test]
    fn no_rows_print_a_count_only_and_no_list_is_no_table() {
        assert_eq!(boxed(&Rows::read(&json!([]), None).unwrap()), "(0 rows)\n");
        assert_eq!(Rows::read(&json!({"a": 1}), None), None);
        assert_eq!(Rows::read(&json!([1]), None), None);
    }

    #[test]
    fn a_cell_can_not_break_the_box() {
        let rows = Rows::read(&json!([{"x": "a\nb\u{1b}[2J"}]), None).unwrap();
        assert!(boxed(&rows).contains("│ a\\nb\\u{1b}[2J │"), "{}", boxed(&rows));
    }

    #[test]
    fn wide_characters_do_not_shift_the_border() {
        let rows = Rows::read(&json!([{"x": "日本"}, {"x": "abcd"}]), None).unwrap();
        let text = boxed(&rows);
        assert!(text.contains("│ 日本 │") && text.contains("│ abcd │"), "{text}");
    }

    #[test]
    fn columns_align_without_counting_colours() {
        let green = super::super::GREEN;
        let rows = vec![vec![format!("{green}ok{green:#}"), "x".into()], vec!["longer".into(), String::new()]];
        let text = anstream::adapter::strip_str(&columns(&["A", "B"], &rows)).to_string();
        assert_eq!(text, "A       B\nok      x\nlonger\n");
    }
}
