-- pace
return string.format('%.6f', pace(t))
