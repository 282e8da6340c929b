-- The ticket shop that the compose file's daemon follows. MySQL's image runs the
-- files of this folder once, in the database `shop`, when its volume is new; the
-- stock tables follow from stockapi/schema.sql.

CREATE TABLE venue (
  id       BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  name     VARCHAR(200) NOT NULL,
  city     VARCHAR(100) NOT NULL,
  capacity INT UNSIGNED NOT NULL
) ENGINE=InnoDB;

CREATE TABLE event (
  id          BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  venue_id    BIGINT UNSIGNED NOT NULL,
  title       VARCHAR(200) NOT NULL,
  state       ENUM('draft','published','cancelled') NOT NULL DEFAULT 'draft',
  -- Compared with the clock where they are read: nothing is written when they pass.
  visible_at  DATETIME NOT NULL,
  sellable_at DATETIME NOT NULL,
  updated_at  TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
  KEY event_venue (venue_id),
  CONSTRAINT event_venue FOREIGN KEY (venue_id) REFERENCES venue (id)
) ENGINE=InnoDB;

CREATE TABLE session (
  id        BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  event_id  BIGINT UNSIGNED NOT NULL,
  starts_at DATETIME NOT NULL,
  doors_at  DATETIME NULL,
  KEY session_event (event_id, starts_at),
  CONSTRAINT session_event FOREIGN KEY (event_id) REFERENCES event (id)
) ENGINE=InnoDB;

CREATE TABLE price_tier (
  id         BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  session_id BIGINT UNSIGNED NOT NULL,
  name       VARCHAR(100) NOT NULL,
  price      DECIMAL(10,2) NOT NULL,
  currency   CHAR(3) NOT NULL,
  KEY price_tier_session (session_id, price),
  CONSTRAINT price_tier_session FOREIGN KEY (session_id) REFERENCES session (id)
) ENGINE=InnoDB;

INSERT INTO venue (id, name, city, capacity) VALUES
  (1, 'Harbour Hall', 'Hamburg', 2400),
  (2, 'Old Mill', 'Ghent', 350);

INSERT INTO event (id, venue_id, title, state, visible_at, sellable_at) VALUES
  (1, 1, 'Winter Concert', 'published', '2026-01-01 07:00:00', '2026-01-01 09:00:00'),
  (2, 2, 'Evening of Short Plays', 'published', '2026-01-01 07:00:00', '2026-01-01 09:00:00');

INSERT INTO session (id, event_id, starts_at, doors_at) VALUES
  (1, 1, '2027-01-16 19:00:00', '2027-01-16 18:00:00'),
  (2, 1, '2027-01-17 19:00:00', '2027-01-17 18:00:00'),
  (3, 2, '2027-02-05 18:30:00', NULL);

INSERT INTO price_tier (id, session_id, name, price, currency) VALUES
  (1, 1, 'Stalls', 64.00, 'EUR'),
  (2, 1, 'Balcony', 42.50, 'EUR'),
  (3, 2, 'Stalls', 64.00, 'EUR'),
  (4, 2, 'Balcony', 42.50, 'EUR'),
  (5, 3, 'Unreserved', 18.00, 'EUR');
