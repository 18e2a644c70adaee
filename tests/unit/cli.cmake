# What the commands do with words: options, tokens, QR codes, bars. Their files, without the program.
lingua_test(test_cli tests/unit/test_cli.c src/cli/options.c src/cli/say.c src/cli/invitation.c src/cli/qr.c
  src/head/qr.c src/cli/bars.c
  LIBS lingua_link PkgConfig::QRENCODE)
if(NOT LINGUA_JOIN_ONLY)
  lingua_test(test_top tests/unit/test_top.c src/cli/top_view.c src/cli/screen.c src/cli/say.c LIBS lingua_head)
  target_compile_definitions(test_top PRIVATE GOLDEN="${CMAKE_SOURCE_DIR}/tests/unit/top")
endif()
