# Moves rows between a DuckDB database and a file with one row a line. What the functions return is the worker's.
# `statements.py` stands before this.


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def literal(text):
    return "'" + text.replace("'", "''") + "'"


def guarded(request, work):
    """Connects, works in one transaction, and tells what went wrong."""
    try:
        import duckdb
    except ImportError as error:
        return {"missing": str(error)}
    try:
        connection = duckdb.connect(request["database"])
        try:
            connection.execute("BEGIN")
            answer = work(connection)
            if "refused" not in answer and "too_large" not in answer:
                connection.execute("COMMIT")
            return answer
        finally:
            connection.close()
    except (duckdb.Error, RuntimeError) as error:
        return {"error": {"type": type(error).__name__, "message": str(error)}}


def read_rows(request):
    """Writes the rows of a query into the file."""

    def work(connection):
        cursor = connection.execute(request["query"])
        written = 0
        with open(request["file"], "w", encoding="utf-8") as file:
            for row in rows(cursor, request["chunk_rows"]):
                line = json.dumps(row, ensure_ascii=False)
                written += len(line) + 1
                if written > request["bytes_max"]:
                    return {"too_large": True}
                file.write(line + "\n")
        return {}

    return guarded(request, work)


def write_rows(request):
    """Inserts the rows of the file: fields `0`, `1`, …, all of them texts, in the order of `columns`, and `nth`."""

    def work(connection):
        table = request["table"]
        described = connection.execute("DESCRIBE " + table).fetchall()
        types = {row[0]: row[1] for row in described}
        folded = {name.lower(): name for name in types}
        for column in request["columns"] + request["key"]:
            if column.lower() not in folded:
                known = ", ".join(types)
                return {"refused": "%s has no column `%s`: it has %s" % (table, column, known)}
        columns = [folded[column.lower()] for column in request["columns"]]
        if request["mode"] == "replace":
            connection.execute("DELETE FROM " + table)
        if not columns:
            return {"columns": columns}
        key = [folded[column.lower()] for column in request["key"]]
        if not key:
            key = [row[0] for row in described if row[3] == "PRI"]
        names = ", ".join(quoted(column) for column in columns)
        values = ", ".join('CAST("%d" AS %s)' % (nth, types[column]) for nth, column in enumerate(columns))
        fields = ", ".join("'%d': 'VARCHAR'" % nth for nth in range(len(columns)))
        source = "read_json(%s, format = 'newline_delimited', maximum_object_size = %d, columns = {%s, 'nth': 'BIGINT'})" % (
            literal(request["file"]),
            request["line_bytes_max"],
            fields,
        )
        sql = "INSERT INTO %s (%s) SELECT %s FROM %s" % (table, names, values, source)
        if request["mode"] == "upsert":
            if not key:
                return {"refused": "%s has no primary key: say with `target.key` what upsert goes by" % table}
            for column in key:
                if column not in columns:
                    return {"refused": "upsert goes by `%s`, which the rows do not give" % column}
            parts = ", ".join('"%d"' % columns.index(column) for column in key)
            # Of rows with the same key the last counts.
            sql += " QUALIFY row_number() OVER (PARTITION BY %s ORDER BY nth DESC) = 1" % parts
            others = [column for column in columns if column not in key]
            changes = ", ".join("%s = EXCLUDED.%s" % (quoted(column), quoted(column)) for column in others)
            sql += " ON CONFLICT (%s) DO %s" % (
                ", ".join(quoted(column) for column in key),
                "UPDATE SET " + changes if changes else "NOTHING",
            )
        connection.execute(sql)
        return {"columns": columns}

    return guarded(request, work)
