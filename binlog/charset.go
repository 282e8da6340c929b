package binlog

import (
	"context"
	"database/sql"
	"fmt"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/encoding/unicode/utf32"
)

// Charsets maps a server's collation ids to character sets. The ids differ
// between MySQL and MariaDB and between MariaDB versions, so they are asked for.
type Charsets map[uint64]string

// encodings maps the servers' names to decoders; nil is UTF-8 already. What the
// servers call latin1 is Windows-1252.
var encodings = map[string]encoding.Encoding{
	"utf8": nil, "utf8mb3": nil, "utf8mb4": nil, "ascii": nil,
	"latin1": charmap.Windows1252, "latin2": charmap.ISO8859_2, "latin5": charmap.ISO8859_9, "latin7": charmap.ISO8859_13,
	"greek": charmap.ISO8859_7, "hebrew": charmap.ISO8859_8, "koi8r": charmap.KOI8R, "koi8u": charmap.KOI8U,
	"cp850": charmap.CodePage850, "cp852": charmap.CodePage852, "cp866": charmap.CodePage866,
	"cp1250": charmap.Windows1250, "cp1251": charmap.Windows1251, "cp1256": charmap.Windows1256, "cp1257": charmap.Windows1257,
	"tis620": charmap.Windows874, "macroman": charmap.Macintosh,
	"gbk": simplifiedchinese.GBK, "gb2312": simplifiedchinese.GBK, "gb18030": simplifiedchinese.GB18030,
	"big5": traditionalchinese.Big5, "sjis": japanese.ShiftJIS, "cp932": japanese.ShiftJIS,
	"ujis": japanese.EUCJP, "eucjpms": japanese.EUCJP, "euckr": korean.EUCKR,
	"ucs2":    unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM),
	"utf16":   unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM),
	"utf16le": unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM),
	"utf32":   utf32.UTF32(utf32.BigEndian, utf32.IgnoreBOM),
}

// decoder is nil when the bytes are UTF-8 already.
func (c Charsets) decoder(collation uint64) (*encoding.Decoder, error) {
	name, ok := c[collation]
	if !ok {
		return nil, fmt.Errorf("collation %d is not known to the server's information_schema", collation)
	}
	enc, ok := encodings[name]
	if !ok {
		return nil, fmt.Errorf("character set %s cannot be converted to UTF-8; convert the column to utf8mb4", name)
	}
	if enc == nil {
		return nil, nil //nolint:nilnil // nothing to convert
	}
	return enc.NewDecoder(), nil
}

// loadCharsets asks the server. MariaDB keeps the ids of its newer collations
// only in the applicability table, and has no id column there before 10.10.
func loadCharsets(ctx context.Context, db *sql.DB) (Charsets, error) {
	out := Charsets{}
	queries := []string{
		"SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATIONS WHERE ID IS NOT NULL AND CHARACTER_SET_NAME IS NOT NULL",
		"SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY WHERE ID IS NOT NULL AND CHARACTER_SET_NAME IS NOT NULL",
	}
	for i, q := range queries {
		if err := out.load(ctx, db, q); err != nil && i == 0 {
			return nil, fmt.Errorf("read collations: %w", err)
		}
	}
	return out, nil
}

func (c Charsets) load(ctx context.Context, db *sql.DB, query string) error {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id uint64
		var name string
		if err := rows.Scan(&id, &name); err != nil {
			return err
		}
		c[id] = name
	}
	return rows.Err()
}
