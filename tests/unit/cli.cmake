# What the commands do with words: options, tokens, QR codes, bars. Their files, without the program.
lingua_test(test_cli tests/unit/test_cli.c src/cli/options.c src/cli/say.c src/cli/invitation.c src/cli/qr.c
  src/head/qr.c src/cli/bars.c
  LIBS lingua_link PkgConfig::QRENCODE)
