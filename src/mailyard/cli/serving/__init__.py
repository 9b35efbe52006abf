"""What each role serves: services of the application, started and drained in order."""
