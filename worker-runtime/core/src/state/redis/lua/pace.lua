return string.format('%.6f', pace())
