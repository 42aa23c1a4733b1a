// JDBC on a ward, after specimens.sql: the login is the first statement of each transaction.
//
// java -cp /usr/share/java/postgresql.jar Jdbc.java
// WARDKEY_WARD_DSN: postgresql://tenant_acme@host:port/db. PGPASSWORD. WARDKEY_TOKEN: of your identity provider, or
// `wardkey token`. WARDKEY_POOLER=1: behind PgBouncer in transaction mode.
import java.math.BigDecimal;
import java.net.URI;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Types;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.time.OffsetDateTime;
import java.time.OffsetTime;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Properties;
import java.util.UUID;
import org.postgresql.util.PSQLException;

public class Jdbc {
  static final String TOKEN = System.getenv("WARDKEY_TOKEN");
  static final boolean POOLED = !Objects.requireNonNullElse(System.getenv("WARDKEY_POOLER"), "").isEmpty();
  static final String INSERT = "insert into specimens (accession, note) values (?, ?)";

  interface Work {
    void run() throws SQLException;
  }

  static Connection connect() throws SQLException {
    URI dsn = URI.create(System.getenv("WARDKEY_WARD_DSN"));
    Properties properties = new Properties();
    properties.setProperty("user", dsn.getUserInfo());
    properties.setProperty("password", System.getenv("PGPASSWORD"));
    properties.setProperty("reWriteBatchedInserts", "true"); // a batch becomes few statements of many rows
    properties.setProperty("stringtype", "unspecified"); // a String may be the text of any type: json, inet, enums
    // PgBouncer before 1.21 knows no prepared statements; 0 names none
    properties.setProperty("prepareThreshold", POOLED ? "0" : "3");
    String url = "jdbc:postgresql://" + dsn.getHost() + ":" + dsn.getPort() + dsn.getPath();
    Connection connection = DriverManager.getConnection(url, properties);
    connection.setAutoCommit(false); // the driver sends BEGIN with the first statement, which is the login
    return connection;
  }

  static void ward(Connection connection, String token, Work work) throws SQLException {
    try (PreparedStatement login = connection.prepareStatement("select ward.login(?)")) {
      login.setString(1, token);
      login.execute();
      work.run();
      connection.commit();
    } catch (SQLException | RuntimeException error) {
      connection.rollback();
      throw error;
    }
  }

  static String one(Connection connection, String query, Object... values) throws SQLException {
    try (PreparedStatement statement = connection.prepareStatement(query)) {
      for (int n = 0; n < values.length; n++) statement.setObject(n + 1, values[n]);
      try (ResultSet rows = statement.executeQuery()) {
        rows.next();
        return rows.getString(1);
      }
    }
  }

  static Map<String, Object> everyType(Connection connection) throws SQLException {
    byte[] bytes = new byte[256];
    for (int n = 0; n < 256; n++) bytes[n] = (byte) n;
    Map<String, Object> values = new LinkedHashMap<>();
    values.put("accession", "types");
    values.put("note", "\u00dcn\u00efcode, 'quoted'");
    values.put("rack", "R-17");
    values.put("shelf", "B   ");
    values.put("fasting", true);
    values.put("tubes", (short) -32768);
    values.put("volume", 2147483647);
    values.put("serial", 9007199254740993L);
    values.put("result", new BigDecimal("1234567890123456.7890"));
    values.put("ratio", 0.5f);
    values.put("factor", 0.1);
    values.put("collected_on", LocalDate.of(2026, 3, 29));
    values.put("collected_at", OffsetDateTime.parse("2026-03-29T01:30:00.123456Z"));
    values.put("read_at", LocalDateTime.parse("2026-03-29T02:30:00.123456"));
    values.put("daily_at", LocalTime.parse("23:59:59.999999"));
    values.put("called_at", OffsetTime.parse("12:00:00+05:45"));
    values.put("kept", "40 days 03:00:00.000001");
    values.put("device", UUID.fromString("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"));
    values.put("message", "{\"b\": 1, \"a\": [null, \"x\"]}");
    values.put("details", "{\"a\": {\"b\": [1, 2]}}");
    values.put("image", bytes);
    values.put("address", "2001:db8::1/64");
    values.put("codes", connection.createArrayOf("text", new String[] {"a,b", "c\"d", null}));
    values.put("levels", connection.createArrayOf("int2", new Short[] {-1, 1}));
    values.put("positions", connection.createArrayOf("int4", new Integer[][] {{1, 2}, {3, 4}}));
    values.put("counts", connection.createArrayOf("int8", new Long[] {9007199254740993L}));
    values.put("state", "used up");
    return values;
  }

  static void check(ResultSet row, Map<String, Object> expected) throws SQLException {
    for (Map.Entry<String, Object> entry : expected.entrySet()) {
      Object value = entry.getValue();
      boolean isArray = value instanceof java.sql.Array;
      if (isArray) value = ((java.sql.Array) value).getArray();
      Object read;
      if (isArray) read = row.getArray(entry.getKey()).getArray();
      else if (value instanceof byte[]) read = row.getBytes(entry.getKey());
      else if (value instanceof String) read = row.getString(entry.getKey());
      else read = row.getObject(entry.getKey(), value.getClass());
      if (!Objects.deepEquals(read, value)) throw new AssertionError(entry.getKey());
    }
  }

  public static void main(String[] arguments) throws SQLException {
    try (Connection connection = connect()) {
      ward(connection, TOKEN, () -> {
        long key;
        // the key only: RETURN_GENERATED_KEYS would be RETURNING *, which opens every sealed column
        try (PreparedStatement insert = connection.prepareStatement(INSERT, new String[] {"id"})) {
          insert.setString(1, "A-17");
          insert.setString(2, "chest pain");
          insert.executeUpdate();
          try (ResultSet keys = insert.getGeneratedKeys()) {
            keys.next();
            key = keys.getLong(1);
          }
        }
        System.out.println("inserted " + one(connection, "select note from specimens where id = ?", key));
        try (PreparedStatement insert = connection.prepareStatement(INSERT)) {
          for (int n = 0; n < 100; n++) {
            insert.setString(1, "B-" + n);
            insert.setString(2, "batch " + n);
            insert.addBatch();
          }
          insert.executeBatch();
        }
        try (PreparedStatement update = connection.prepareStatement("update specimens set note = ? where id = ?")) {
          update.setString(1, "cough");
          update.setLong(2, key);
          if (update.executeUpdate() != 1) throw new AssertionError("not one row");
        }
        System.out.println("updated " + one(connection, "select note from specimens where id = ?", key));
        String delete = "delete from specimens where accession = ? returning note";
        System.out.println("deleted " + one(connection, delete, "B-99"));
      });

      ward(connection, TOKEN, () -> {
        Map<String, Object> values = everyType(connection);
        String names = String.join(", ", values.keySet());
        String marks = String.join(", ", values.keySet().stream().map(name -> "?").toArray(String[]::new));
        String insert = "insert into specimens (" + names + ") values (" + marks + ") returning " + names;
        try (PreparedStatement statement = connection.prepareStatement(insert)) {
          int n = 1;
          for (Object value : values.values()) statement.setObject(n++, value);
          try (ResultSet rows = statement.executeQuery()) {
            rows.next();
            check(rows, values);
          }
        }
        String read = "select " + names + " from specimens where accession = 'types'";
        try (PreparedStatement statement = connection.prepareStatement(read)) {
          // from the third time on the driver takes what it can in binary
          for (int n = 0; n < 5; n++) {
            try (ResultSet rows = statement.executeQuery()) {
              rows.next();
              check(rows, values);
            }
          }
        }
        System.out.println("types " + (values.size() - 1));
      });

      List<String> notes = new ArrayList<>(List.of(""));
      // a prepared statement outlives the transaction; whose rows it reads, each login says
      try (PreparedStatement read = connection.prepareStatement("select note from specimens where accession = ?")) {
        for (int n = 0; n < 7; n++) {
          ward(connection, TOKEN, () -> {
            read.setString(1, "A-17");
            try (ResultSet rows = read.executeQuery()) {
              rows.next();
              notes.set(0, rows.getString(1));
            }
          });
        }
      }
      System.out.println("prepared " + notes.get(0));

      ward(connection, TOKEN, () -> {
        List<String> seen = new ArrayList<>();
        String query = "select note from specimens where accession like 'B-%' order by id";
        try (PreparedStatement read = connection.prepareStatement(query)) {
          read.setFetchSize(10); // a cursor, as auto-commit is off
          try (ResultSet rows = read.executeQuery()) {
            while (rows.next()) seen.add(rows.getString(1));
          }
        }
        System.out.println("cursor " + seen.size() + " " + seen.get(0) + " " + seen.get(seen.size() - 1));
      });

      ward(connection, TOKEN, () -> {
        Savepoint before = connection.setSavepoint();
        try {
          one(connection, INSERT + " returning id", "A-17", "twice");
        } catch (PSQLException error) {
          var fields = error.getServerErrorMessage();
          String where = fields.getTable() + " " + fields.getConstraint();
          System.out.println("savepoint " + error.getSQLState() + " " + where);
          connection.rollback(before);
        }
        System.out.println("goes on " + one(connection, "select count(*) from specimens where note = 'cough'"));
      });

      try {
        ward(connection, "not a token", () -> {});
      } catch (PSQLException error) {
        System.out.println("refused " + error.getSQLState() + " " + error.getServerErrorMessage().getMessage());
        System.out.println("hint " + error.getServerErrorMessage().getHint());
      }
      try {
        one(connection, "select note from specimens"); // no login in this transaction
      } catch (PSQLException error) {
        System.out.println("refused " + error.getSQLState() + " " + error.getServerErrorMessage().getMessage());
      }
      connection.rollback();
    }
  }
}
